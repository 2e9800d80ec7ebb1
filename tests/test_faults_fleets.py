"""Several workers on one queue that are killed with -9 at random under load: nothing is lost.

ASYNC_SIGNALS_SOAK=60 lets it go on for a minute each.
"""

from __future__ import annotations

import os
import time

import pytest

from checker.fleet import fleet
from checker.guarantees import cell
from checker.trial import MakeTrial
from conftest import BROKERS
from servers.project import Broker
from servers.worker import KINDS, Kind

#: For how many seconds workers die.
LASTS = float(os.environ.get("ASYNC_SIGNALS_SOAK", "12"))
#: How many sends a second they are under.
RATE = 150.0
#: How soon the survivors must have done what is left, in seconds.
DRAINED = 90.0


@pytest.mark.timeout(240 + 2 * LASTS)
@pytest.mark.parametrize("kinds", [("ours", "ours"), ("stock", "ours")], ids=["ours", "mixed"])
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_a_fleet_killed_at_random(
    make_trial: MakeTrial, broker: Broker, kinds: tuple[Kind, ...], request: pytest.FixtureRequest
) -> None:
    """Whoever is known to lose what it holds when it is killed stays alive, and shares the queue all the same."""
    name = request.node.callspec.params["broker"]
    mortal = [kind for kind in KINDS if cell(1, kind, name).holds and cell(3, kind, name).holds]
    trial = make_trial(broker, f"a fleet of {' and '.join(kinds)} on {name}, killed at random", max_deliveries=50)
    seed = time.time_ns()
    with fleet(trial, kinds, seed) as workers:
        with trial.load(rate=RATE):
            workers.kill_at_random(LASTS, mortal)
        trial.drained(timeout=DRAINED)
        killed = ", ".join(f"{count} {kind}" for kind, count in workers.killed.items())
    trial.verdict(killed=killed, seed=seed).require()
