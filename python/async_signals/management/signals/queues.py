"""List the queues that the settings and the signals name, and how much waits in each.

Nothing is taken out of a queue to find out. What the broker does not tell is left out: RabbitMQ tells how many
consumers a queue has, Redis and SQLite how long its next message has been waiting.
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from typing import Any

from async_signals.inspection.queues import QueueInfo, queues
from async_signals.inspection.signals import some_of

from .output import Output
from .project import load_modules, look_at, the_app


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one queue a line.")


def run(output: Output, *, as_json: bool, **_: Any) -> None:
    """Prints one row for each queue."""
    app = the_app()
    load_modules(app, output)
    with look_at(app) as look:
        found = queues(app, look)
        if as_json:
            for queue in found:
                output.json(dataclasses.asdict(queue))
            return
        headings = ("QUEUE", "READY", "IN FLIGHT", "CONSUMERS", "OLDEST", "DEAD", "PAUSED", "SIGNALS")
        output.table(headings, map(_row, found), "No queues")


def _row(queue: QueueInfo) -> tuple[Any, ...]:
    if queue.error is not None:
        return queue.name, None, None, None, None, None, None, queue.error
    return (
        queue.name,
        queue.ready if queue.exists else "not there yet",
        queue.in_flight,
        queue.consumers,
        None if queue.oldest is None else duration(queue.oldest),
        queue.dead_letters,
        "yes" if queue.is_paused else None,
        some_of(queue.signals) or None,
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``12 min``, ``3 h``, ``5 d``."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"
