"""How many signals a second each worker runs: the same queue, the same receiver, one worker after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .processes import Household, ProcessFailed
from .story import Queues
from .workers import WORKERS

#: How many signals each worker is given: some seconds of work for Celery's, and enough to see ours at its pace.
SIGNALS = {"async-signals": 20_000, "celery": 600}
#: How long one worker may take over them, its start included, in seconds.
PATIENCE = 90.0
#: How often the receivers' marks are counted, in seconds.
LOOK = 0.002


@dataclass(frozen=True)
class Rate:
    """What one worker did between its first signal and its last."""

    worker: str
    signals: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Without the worker's start."""
        return self.signals / self.seconds


def measure(household: Household, queues: Queues, progress: Callable[[str], None]) -> list[Rate]:
    """Fill the queue and let one worker empty it, for each worker in turn."""
    rates = []
    for name, count in SIGNALS.items():
        progress(f"sending {count:,} signals, and starting {name} to run them")
        household.manage("send_page_views", str(count))
        rates.append(_run(household, name, count, queues))
    progress("")
    return rates


def _run(household: Household, name: str, count: int, queues: Queues) -> Rate:
    marks = household.directory / "page_views"
    marks.write_bytes(b"")
    child = household.start(f"{name} worker", WORKERS[name].arguments(queues.rush, level="WARNING"))
    give_up = time.monotonic() + PATIENCE
    begun, already = None, 0
    while (seen := _marks(marks)) < count:
        now = time.monotonic()
        if begun is None and seen:
            begun, already = now, seen
        if now > give_up:
            raise ProcessFailed(f"the {name} worker ran {seen} of {count} signals in {PATIENCE:g} s", child.tail())
        child.check()
        time.sleep(LOOK)
    seconds = time.monotonic() - (begun or time.monotonic() - LOOK)
    household.stop(child)
    return Rate(name, count - already, seconds)


def _marks(marks: Path) -> int:
    return marks.stat().st_size
