"""Our worker under as much load as a sender makes: it loses nothing and grows in nothing.

Short by default; `make soak` takes ten minutes for each broker.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from checker.trial import MakeTrial, Trial
from conftest import BROKERS
from servers.process import Process
from servers.project import Broker

#: For how many seconds.
LASTS = float(os.environ.get("ASYNC_SIGNALS_SOAK", "5"))
#: After which part of the time it has all that it needs.
WARM = 0.4
#: By how many bytes it may grow after that: what an allocator keeps, and not what a leak of 100 bytes a message takes
#: in ten minutes.
MORE_BYTES = 24 * 2**20
#: By how many open descriptors it may grow after that.
MORE_DESCRIPTORS = 4


@dataclass(frozen=True)
class Size:
    """What the processes of a worker hold together."""

    resident: int
    descriptors: int

    @classmethod
    def of(cls, process: Process) -> Size:
        resident = descriptors = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if os.getpgid(int(folder.name)) == process.pid:
                        resident += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                        descriptors += len(list((folder / "fd").iterdir()))
                except OSError:
                    continue  # it has ended
        return cls(resident, descriptors)


pytestmark = [pytest.mark.timeout(240 + 4 * LASTS), pytest.mark.xdist_group("load")]


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_it_loses_nothing_and_does_not_grow(
    make_trial: MakeTrial, broker: Broker, request: pytest.FixtureRequest
) -> None:
    trial = make_trial(broker, f"our worker under load on {request.node.callspec.params['broker']}")
    with trial.worker("ours", "-c", "2") as worker:
        with trial.load():
            trial.wait_for("second", 100)
            first, began = Size.of(worker.process), time.monotonic()
            keep_books(trial, LASTS * WARM)
            warm = Size.of(worker.process)
            keep_books(trial, LASTS * (1 - WARM))
            last = Size.of(worker.process)
            rate = trial.count("second") / (time.monotonic() - began)
        trial.drained(timeout=60 + 2 * LASTS)
    sizes = (first, warm, last)
    verdict = trial.verdict(
        rate=f"{rate:.0f} messages a second, for {LASTS:.0f} s",
        memory=" → ".join(f"{size.resident / 2**20:.1f} MiB" for size in sizes) + " (first, warm, last)",
        descriptors=" → ".join(str(size.descriptors) for size in sizes),
    )
    verdict.require()
    assert not verdict.duplicates
    assert not verdict.dead
    assert last.resident - warm.resident < MORE_BYTES
    assert last.descriptors - warm.descriptors <= MORE_DESCRIPTORS


def keep_books(trial: Trial, seconds: float) -> None:
    """Lets the load go on for so long, and reads along what is written down."""
    end, never = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < end:
        never.wait(min(1.0, max(0.0, end - time.monotonic())))
        trial.read()
