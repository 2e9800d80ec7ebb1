"""Workers that are killed: what they held runs all the same, by whoever is left."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from checker.guarantees import Cell, brought_about
from checker.trial import MakeTrial, Trial
from servers.eventually import eventually
from servers.project import Broker
from servers.worker import Kind

#: Within how many seconds what a dead worker held must run again.
RECOVERED = 15.0


@brought_about(1)
def test_a_worker_is_killed_while_a_receiver_runs(
    make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell
) -> None:
    trial = make_trial(broker, f"a {worker_kind} worker killed mid-receiver")
    trial.close_gate()
    [held] = trial.send("gated")
    worker = trial.start_worker(worker_kind, name="killed")
    trial.wait_for("at_the_gate", event="began", token=held)
    # These it may have taken too, without having begun with them.
    trial.send("heard", 4)
    worker.kill()
    trial.open_gate()
    with trial.worker(worker_kind, name="survivor"):
        if cell.holds:
            trial.wait_for("at_the_gate", token=held, timeout=RECOVERED)
            trial.wait_for("second", 4)
        else:
            trial.send("heard")
            eventually(lambda: bool(trial.seen("second")), "the survivor's first signal")
    verdict = trial.verdict()
    if cell.holds:
        verdict.require()
        assert trial.project.queues() == {}
    else:
        assert held in verdict.lost
        verdict.require(lost_at_most=5)
