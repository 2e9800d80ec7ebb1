"""Several workers on one queue, some of which are killed at random."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from checker.trial import Trial
from servers.worker import Kind, Worker

#: Between how many seconds one kill comes after another; a worker needs some of them to start.
PAUSES = (0.2, 2.0)


class Fleet:
    """Workers that run.

    Arguments:
        workers: All of them.
        seed: Of the chance by which they die.
    """

    def __init__(self, workers: Sequence[Worker], seed: int) -> None:
        self._workers = workers
        self._chance = random.Random(seed)
        #: How many were killed, of each kind.
        self.killed: Counter[Kind] = Counter()

    def kill_at_random(self, seconds: float) -> None:
        """Kills one with -9 and starts it again, for so many seconds; all run afterwards."""
        end = time.monotonic() + seconds
        never = threading.Event()
        while time.monotonic() < end:
            never.wait(self._chance.uniform(*PAUSES))  # when a fault comes is part of the fault
            victim = self._chance.choice(self._workers)
            victim.kill()
            self.killed[victim.kind] += 1
            victim.start()


@contextlib.contextmanager
def fleet(trial: Trial, kinds: Sequence[Kind], seed: int) -> Iterator[Fleet]:
    """One worker of each kind (a kind may stand there twice) on the trial's queue, for as long as the block runs."""
    with contextlib.ExitStack() as running:
        workers = [
            running.enter_context(trial.worker(kind, name=f"{kind} {number}")) for number, kind in enumerate(kinds, 1)
        ]
        yield Fleet(workers, seed)
