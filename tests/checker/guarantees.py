"""What holds when a fault comes, for each worker on each broker: the one place that says so.

Each row has the number that it has among the faults. `python -m checker.guarantees` prints the table as Markdown.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from servers.worker import KINDS, Kind

BROKERS = ("rabbitmq", "redis", "sqlite")


@dataclass(frozen=True)
class Cell:
    """What is known of one worker on one broker.

    Attributes:
        holds: Whether the promise of the row is kept.
        note: What happens instead; where it holds, what there is to know all the same.
        tested: Whether a test of the faults brings it about for this cell.
        by: Another test that shows it, where there is one.
    """

    holds: bool = True
    note: str = ""
    tested: bool = True
    by: str = ""


HOLDS = Cell()


def but(note: str, *, tested: bool = True) -> Cell:
    """The promise is not kept."""
    return Cell(False, note, tested)


def shown_by(test: str) -> Cell:
    """It holds, and another test says so."""
    return Cell(True, "", False, test)


def left_out(note: str) -> Cell:
    """Not asked, for a reason."""
    return Cell(True, note, False)


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        fault: What happens.
        promise: What must hold.
        cells: (worker, broker) to what differs from "it holds"; a worker or a broker alone means all of its cells.
    """

    fault: str
    promise: str
    cells: dict[str | tuple[str, str], Cell] = field(default_factory=dict)

    def cell(self, worker: str, broker: str) -> Cell:
        for key in ((worker, broker), worker, broker):
            if key in self.cells:
                return self.cells[key]
        return HOLDS


_NO_SERVER = left_out("there is no server")
_AN_HOUR = but("kombu gives it back after the visibility timeout, an hour by default, and up to 100 s later")
_LATE = but(
    "nothing is lost, but it may take 30 s more to end: Celery's pool waits for results to be read that nobody reads"
)
_NEVER = but("kombu's rows are taken for good: what a dead worker held never comes back")

ROWS: dict[int, Row] = {
    1: Row(
        "a worker is killed while a receiver runs",
        "all that it held runs within seconds",
        {("stock", "redis"): _AN_HOUR, ("stock", "sqlite"): _NEVER},
    ),
    2: Row(
        "a process of the pool is killed while a receiver runs", "the message comes again, a bounded number of times"
    ),
    3: Row(
        "a worker is killed between taking a message and knowing of it",
        "the message runs",
        {
            ("stock", "redis"): but("kombu takes first and records afterwards: the message is lost"),
            "sqlite": left_out("taking is one transaction: as when a worker is killed while a receiver runs"),
        },
    ),
    4: Row(
        "a worker is killed after a receiver, before the acknowledgement",
        "one effect for each message with once=True",
        {
            ("stock", "redis"): but(_AN_HOUR.note, tested=False),
            ("stock", "sqlite"): but(_NEVER.note, tested=False),
        },
    ),
    6: Row("the broker stops for a while, and goes on", "the worker goes on by itself", {"sqlite": _NO_SERVER}),
    7: Row(
        "Redis is restarted under load (appendfsync always)",
        "nothing is lost",
        {
            "rabbitmq": left_out("another row"),
            "sqlite": _NO_SERVER,
            ("stock", "redis"): but(
                "what it held comes back after the visibility timeout; what kombu had taken but not recorded is lost; "
                "the worker may end itself while it connects again (an AttributeError in kombu)"
            ),
        },
    ),
    8: Row(
        "RabbitMQ is restarted under load",
        "nothing that was confirmed is lost",
        {"redis": left_out("another row"), "sqlite": _NO_SERVER},
    ),
    18: Row(
        "a malformed message",
        "the worker lives, and the message is dead-lettered",
        {
            "stock": but(
                "Celery acknowledges it and logs it: it is gone; one without an id, and on Redis and SQLite one "
                "without an envelope, ends the worker; on Python 3.14 one that nests too deep leaves a process of its "
                "pool without work for ever"
            )
        },
    ),
    19: Row(
        "a receiver that kills its process, each time",
        "dead-lettered after `max_deliveries`, and the others go on",
        {"stock": shown_by("test_worker.py::TestPoison")},
    ),
    20: Row(
        "a receiver that is slower than the visibility timeout",
        "one run at a time",
        {
            ("stock", "redis"): but("kombu does not renew: another worker gets it while it still runs", tested=False),
            ("stock", "sqlite"): left_out("nothing is ever given back"),
            "rabbitmq": left_out("RabbitMQ has consumer_timeout instead"),
        },
    ),
    21: Row(
        "a receiver that is slower than consumer_timeout",
        "the channel recovers, and the others go on",
        {
            ("stock", "rabbitmq"): but(
                "Celery ends with an unrecoverable error, and the next worker goes on; with RabbitMQ 4.3 it connects "
                "again; nothing is lost"
            ),
            "redis": left_out("RabbitMQ's only"),
            "sqlite": left_out("RabbitMQ's only"),
        },
    ),
    22: Row(
        "a process forks after a send",
        "a fresh connection, and both deliver",
        dict.fromkeys(KINDS, shown_by("test_delivery.py::TestForks")),
    ),
    25: Row("the same message comes twice", "the same id, and one effect with once=True"),
    27: Row(
        "SIGTERM while draining",
        "nothing is lost, and the worker ends in time",
        {
            ("stock", "rabbitmq"): _LATE,
            # Too slow to be shown three times.
            ("stock", "redis"): but(_LATE.note, tested=False),
            ("stock", "sqlite"): but(_LATE.note, tested=False),
        },
    ),
    28: Row("a signal that the worker does not know", "it is dead-lettered"),
    29: Row("one of three receivers fails", "the others run once, and only the failed one again"),
}


#: How many messages a stock worker that is killed takes along for good, at most, by broker; ours takes none.
TAKEN_ALONG = {
    "rabbitmq": 0,
    # What kombu has popped and not recorded yet; it pops one at a time.
    "redis": 1,
    # kombu's rows: four that wait, one that runs, and one that it is taking.
    "sqlite": 6,
}


def cell(row: int, worker: str, broker: str) -> Cell:
    """What is known of a worker on a broker when this fault comes."""
    return ROWS[row].cell(worker, broker)


def brought_about(row: int) -> pytest.MarkDecorator:
    """Parametrises a test over the workers and brokers that a fault is brought about for.

    The test asks for `worker_kind`, `broker` and `cell`.
    """
    chosen: list[tuple[Kind, str]] = [
        (worker, broker) for broker, worker in itertools.product(BROKERS, KINDS) if cell(row, worker, broker).tested
    ]
    return pytest.mark.parametrize(
        ("worker_kind", "broker", "cell"),
        [pytest.param(worker, broker, cell(row, worker, broker), id=f"{worker}-{broker}") for worker, broker in chosen],
        indirect=["worker_kind", "broker"],
    )


def markdown() -> str:
    """The table, as the documentation shows it."""
    names = {"stock": "`celery worker`", "ours": "`async-signals worker`"}
    lines = ["| fault | what must hold | " + " | ".join(names.values()) + " |", "|---|---|---|---|"]
    lines += [
        f"| {row.fault} | {row.promise} | " + " | ".join(_in_words(row, worker) for worker in names) + " |"
        for row in ROWS.values()
    ]
    return "\n".join(lines)


def _in_words(row: Row, worker: str) -> str:
    names = {"rabbitmq": "RabbitMQ", "redis": "Redis", "sqlite": "SQLite"}
    by_words: dict[str, list[str]] = {}
    for broker, name in names.items():
        known = row.cell(worker, broker)
        asked = known.tested or known.by or not known.holds
        if asked:
            by_words.setdefault(known.note or "holds", []).append(name)
    if list(by_words) == ["holds"]:
        return "holds"
    return "; ".join(f"{', '.join(brokers)}: {words}" for words, brokers in by_words.items())


if __name__ == "__main__":
    print(markdown())
