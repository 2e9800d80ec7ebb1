"""Our worker under as much load as a sender makes: it loses nothing and grows in nothing.

Short by default; `make soak` takes ten minutes for each broker.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from checker.trial import MakeTrial
from conftest import BROKERS
from servers.process import Process
from servers.project import Broker

#: For how many seconds.
LASTS = float(os.environ.get("ASYNC_SIGNALS_SOAK", "8"))
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

    def __str__(self) -> str:
        return f"{self.resident / 2**20:.0f} MiB, {self.descriptors} descriptors"


@pytest.mark.timeout(240 + 4 * LASTS)
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_it_loses_nothing_and_does_not_grow(
    make_trial: MakeTrial, broker: Broker, request: pytest.FixtureRequest
) -> None:
    trial = make_trial(broker, f"our worker under load on {request.node.callspec.params['broker']}")
    with trial.worker("ours", "-c", "2") as worker:
        with trial.load():
            trial.wait_for("second", 100)
            for part in (WARM, 1 - WARM):
                warm = Size.of(worker.process)
                threading.Event().wait(LASTS * part)
                trial.read()
            size = Size.of(worker.process)
        trial.drained(timeout=60 + 2 * LASTS)
    verdict = trial.verdict(warm=warm, end=size)
    verdict.require()
    assert not verdict.duplicates
    assert not verdict.parked
    assert size.resident - warm.resident < MORE_BYTES, (warm, size)
    assert size.descriptors - warm.descriptors <= MORE_DESCRIPTORS, (warm, size)
