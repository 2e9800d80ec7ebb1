"""Workers that are killed, wholly or in part: what they held runs all the same, by whoever is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from checker.guarantees import Cell, brought_about
from checker.trial import MakeTrial, Trial
from servers.eventually import eventually
from servers.project import Broker
from servers.proxy import SwallowingProxy
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.worker import Kind

#: Within how many seconds what a dead worker held must run again.
RECOVERED = 15.0
#: Within how many seconds a worker ends that was told to; and Celery's, whose pool may wait for another 30.
ENDED, ENDED_LATE = 15.0, 60.0


def survives(trial: Trial, kind: Kind) -> None:
    """Another worker comes, and what is sent now runs."""
    trial.send("heard")
    with trial.worker(kind, name="survivor"):
        trial.wait_for("second")


@brought_about(1)
def test_a_worker_is_killed_while_a_receiver_runs(
    make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell
) -> None:
    trial = make_trial(broker, f"1: a {worker_kind} worker killed mid-receiver")
    trial.close_gate()
    [held] = trial.send("gated")
    worker = trial.start_worker(worker_kind, name="killed")
    trial.wait_for("at_the_gate", event="began")
    # These it may have taken too, without having begun with them.
    trial.send("heard", 4)
    worker.kill()
    trial.open_gate()
    if not cell.holds:
        survives(trial, worker_kind)
        verdict = trial.verdict()
        assert held in verdict.lost
        verdict.require(lost_at_most=5)
        return
    with trial.worker(worker_kind, name="survivor"):
        trial.wait_for("at_the_gate", timeout=RECOVERED)
        trial.wait_for("second", 4)
        eventually(lambda: trial.project.queues() == {}, "an empty queue")
    trial.verdict().require()


@brought_about(2)
def test_a_process_of_the_pool_is_killed(make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell) -> None:
    assert cell.holds
    trial = make_trial(broker, f"2: a child of a {worker_kind} worker killed")
    trial.close_gate()
    with trial.worker(worker_kind) as worker:
        trial.send("gated")
        [began] = trial.wait_for("at_the_gate", event="began")
        assert began["pid"] != worker.process.pid, "receivers run in a process of the pool"
        trial.send("heard", 3)
        os.kill(began["pid"], signal.SIGKILL)
        trial.open_gate()
        trial.wait_for("at_the_gate")
        trial.wait_for("second", 3)
    trial.verdict().require()


@pytest.fixture
def proxy(broker: RedisServer | RabbitmqServer) -> Iterator[SwallowingProxy]:
    """Stands between a worker and its broker, and keeps from it the first message that it takes."""
    proxy = SwallowingProxy(broker.port, b"async_signals.propagate")
    yield proxy
    proxy.close()


@brought_about(3)
def test_a_worker_is_killed_between_taking_and_knowing(
    make_trial: MakeTrial,
    worker_kind: Kind,
    broker: RedisServer | RabbitmqServer,
    cell: Cell,
    proxy: SwallowingProxy,
) -> None:
    trial = make_trial(
        broker,
        f"3: a {worker_kind} worker killed between taking and knowing",
        more="import os; CELERY_BROKER_URL = os.environ.get('WORKERS_BROKER', CELERY_BROKER_URL)",
    )
    assert trial.project.url is not None
    past = trial.project.url.replace(str(broker.port), str(proxy.port))
    worker = trial.start_worker(worker_kind, name="killed", env={"WORKERS_BROKER": past})
    try:
        [taken] = trial.send("heard")
        assert proxy.swallowed.wait(60)
    finally:
        worker.kill()
        proxy.close()
    assert not trial.seen("first")
    if not cell.holds:
        survives(trial, worker_kind)
        verdict = trial.verdict()
        assert list(verdict.lost) == [taken]
        assert trial.project.queues() == {}
        return
    with trial.worker(worker_kind, name="survivor"):
        trial.wait_for("second", timeout=RECOVERED)
    trial.verdict().require()


@brought_about(4)
def test_a_worker_is_killed_after_a_receiver_that_runs_once(
    make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell
) -> None:
    assert cell.holds
    trial = make_trial(broker, f"4: a {worker_kind} worker killed before the acknowledgement", "checker.once")
    trial.project.migrate()
    trial.close_gate()
    trial.send("single")
    worker = trial.start_worker(worker_kind, name="killed")
    trial.wait_for("gate_after_once", event="began")
    worker.kill()
    trial.open_gate()
    with trial.worker(worker_kind, name="survivor"):
        trial.wait_for("gate_after_once", timeout=RECOVERED)
    verdict = trial.verdict()
    verdict.require()
    assert not verdict.duplicates
    assert len(trial.seen("only_once")) == 1


@brought_about(25)
def test_the_same_message_twice(make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell) -> None:
    assert cell.holds
    trial = make_trial(broker, f"25: the same message twice, to a {worker_kind} worker", "checker.once")
    trial.project.migrate()
    trial.send("single")
    trial.send("heard")
    trial.send("heard")
    trial.project.replay("checked", [0, 0, 1, 1, 2])
    with trial.worker(worker_kind):
        trial.wait_for("gate_after_once", 2)
        trial.wait_for("second", 3)
    verdict = trial.verdict()
    verdict.require()
    assert verdict.duplicates == {
        (trial.seen("gate_after_once")[0]["token"], "gate_after_once"): 1,
        (trial.seen("first")[0]["token"], "first"): 1,
        (trial.seen("first")[0]["token"], "second"): 1,
    }


@brought_about(19)
def test_a_receiver_that_kills_its_process(
    make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell
) -> None:
    """Two of them among many that do no harm, which a worker takes together: they alone are dead-lettered."""
    assert cell.holds
    trial = make_trial(broker, f"19: poison among messages, to a {worker_kind} worker", max_deliveries=3)
    trial.send("heard", 100)
    poison = trial.send("deadly")
    trial.send("heard", 100)
    poison += trial.send("deadly")
    trial.send("heard", 100)
    with trial.worker(worker_kind):
        eventually(lambda: trial.dead().keys() >= set(poison), "the poison to be dead-lettered", timeout=90)
        trial.drained()
    assert trial.dead() == dict.fromkeys(poison, "TooManyDeliveries"), "the others are innocent"
    began = [line["token"] for line in trial.seen("kills_its_process", "began")]
    assert all(2 <= began.count(token) <= 3 for token in poison), "each is counted once more if it was beside the other"
    trial.verdict().require()


@brought_about(20)
def test_a_receiver_slower_than_the_visibility_timeout(
    make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell
) -> None:
    """On SQLite the timeout is the worker's own: the time without a sign of life."""
    assert cell.holds
    redis = isinstance(broker, RedisServer)
    more = 'CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 2}' if redis else ""
    trial = make_trial(broker, f"20: a slow receiver of a {worker_kind} worker", more=more)
    with trial.worker(worker_kind, name="one"), trial.worker(worker_kind, name="other"):
        trial.send("slow", seconds=7 if redis else 9)
        trial.wait_for("takes_its_time")
        # Whoever had thought it lost would have begun by now.
        trial.send("heard", 10)
        trial.wait_for("second", 10)
    assert len(trial.seen("takes_its_time", "began")) == 1
    trial.verdict().require()


@brought_about(27)
def test_sigterm_while_draining(make_trial: MakeTrial, worker_kind: Kind, broker: Broker, cell: Cell) -> None:
    trial = make_trial(broker, f"27: a {worker_kind} worker told to end under load")
    with trial.load(rate=100):
        worker = trial.start_worker(worker_kind, "-c", "2", name="told to end")
        trial.wait_for("second", 20)
        code = worker.stop(timeout=ENDED if cell.holds else ENDED_LATE)
    assert code == 0, worker.output[-3000:]
    with trial.worker(worker_kind, "-c", "2", name="the next"):
        trial.drained()
    trial.verdict().require()
