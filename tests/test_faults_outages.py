"""Brokers that stop, hang or are restarted under load: workers go on by themselves, and nothing is lost.

An outage takes its time, so both workers go through it together, each with a project and a sender of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import celery
import pytest

from checker.guarantees import Cell, brought_about
from checker.trial import QUEUE, MakeTrial, Trial
from conftest import need
from servers import rabbitmq, redis
from servers.eventually import eventually
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.worker import KINDS, Kind, Worker

Mortal = RedisServer | RabbitmqServer
#: For how long a broker stands still, in seconds; a minute's run takes the whole 30.
STANDSTILL = 30.0 if "ASYNC_SIGNALS_SOAK" in os.environ else 8.0
#: How many sends a second each worker is under.
RATE = 50.0
#: How many signals must have run before, and again after the outage.
BEFORE, AFTER = 20, 40
#: Within how many seconds a worker has run what has come meanwhile: a stock one runs some dozens a second here.
DRAINED = 60.0
#: A queue as RabbitMQ 4.3 wants it for the timeout, which earlier versions have for all queues.
IMPATIENT = {"x-queue-type": "quorum", "x-consumer-timeout": 2_000}
#: How many messages a stock worker with one process may hold: four that wait, one that runs, and one that it takes.
HELD = 6


class Outage:
    """What came of an outage, by worker."""

    def __init__(self, make_trial: MakeTrial, server: Mortal, title: str, bring_about: Callable[[], None]) -> None:
        self._trials: dict[Kind, Trial] = {}
        self._workers: dict[Kind, Worker] = {}
        self._troubles: dict[Kind, BaseException] = {}
        with contextlib.ExitStack() as running:
            for kind in KINDS:
                with self._noted(kind):
                    trial = make_trial(server, title.format(kind))
                    self._workers[kind] = running.enter_context(trial.worker(kind))
                    self._trials[kind] = trial
            with contextlib.ExitStack() as sending:
                for kind, trial in self._trials.items():
                    with self._noted(kind):
                        sending.enter_context(trial.load(rate=RATE))
                        trial.wait_for("second", BEFORE)
                bring_about()
                for kind, trial in self._trials.items():
                    with self._noted(kind):
                        self._goes_on(kind, trial)
            for kind, trial in self._trials.items():
                with self._noted(kind):
                    trial.drained(timeout=DRAINED)
                    worker = self._workers[kind]
                    assert kind == "stock" or worker.process.running(), worker.output[-3000:]

    def _goes_on(self, kind: Kind, trial: Trial) -> None:
        worker, wanted = self._workers[kind], trial.count("second") + AFTER
        eventually(
            lambda: trial.count("second") >= wanted or not worker.process.running(),
            f"{AFTER} signals after the outage",
        )
        if kind == "stock" and not worker.process.running():
            # kombu may end it while it connects to Redis again: whoever keeps it running starts it again.
            worker.start()
        trial.wait_for("second", wanted)

    @contextlib.contextmanager
    def _noted(self, kind: Kind) -> Iterator[None]:
        """What goes wrong for one worker is told by its test, and does not keep the other from its own."""
        try:
            yield
        except Exception as trouble:
            self._troubles.setdefault(kind, trouble)

    def trial(self, kind: Kind) -> Trial:
        """The trial of one worker. Raises what went wrong in it."""
        if kind in self._troubles:
            raise self._troubles[kind]
        return self._trials[kind]


@pytest.fixture(scope="session")
def mortal_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """It has on disk whatever it has answered."""
    need(redis.program(), "redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"), ["--appendonly", "yes", "--appendfsync", "always"])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mortal_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitmqServer]:
    need(rabbitmq.program(), "rabbitmq-server")
    server = RabbitmqServer(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Mortal:
    """A server that only these tests use."""
    server: Mortal = request.getfixturevalue(f"mortal_{request.param}")
    return server


@pytest.fixture(scope="module")
def stopped(make_lasting_trial: MakeTrial, broker: Mortal) -> Outage:
    def stop() -> None:
        broker.process.pause()
        threading.Event().wait(STANDSTILL)  # the fault itself
        broker.process.resume()

    return Outage(make_lasting_trial, broker, f"6: {type(broker).__name__} stopped under a {{}} worker", stop)


@pytest.fixture(scope="module")
def restarted(make_lasting_trial: MakeTrial, broker: Mortal) -> Outage:
    def restart() -> None:
        broker.kill()
        broker.start()

    return Outage(make_lasting_trial, broker, f"7, 8: {type(broker).__name__} restarted under a {{}} worker", restart)


@brought_about(6)
def test_the_broker_stops_for_a_while(stopped: Outage, worker_kind: Kind, cell: Cell) -> None:
    assert cell.holds
    stopped.trial(worker_kind).verdict().require()


@brought_about(7)
def test_redis_is_restarted(restarted: Outage, worker_kind: Kind, cell: Cell) -> None:
    verdict = restarted.trial(worker_kind).verdict()
    verdict.require(lost_at_most=0 if cell.holds else HELD)


@brought_about(8)
def test_rabbitmq_is_restarted(restarted: Outage, worker_kind: Kind, cell: Cell) -> None:
    assert cell.holds
    restarted.trial(worker_kind).verdict().require()


@pytest.fixture(scope="module")
def impatient(broker: RabbitmqServer) -> Iterator[RabbitmqServer]:
    """RabbitMQ that closes a channel whose consumer has held a message for two seconds."""

    def wait_at_most(milliseconds: int, look_every: int) -> None:
        broker.control(
            "eval",
            f"application:set_env(rabbit, consumer_timeout, {milliseconds}),"
            f" application:set_env(rabbit, channel_tick_interval, {look_every}).",
        )

    wait_at_most(2_000, 500)
    yield broker
    wait_at_most(1_800_000, 60_000)


@brought_about(21)
def test_a_receiver_slower_than_consumer_timeout(
    make_trial: MakeTrial, impatient: RabbitmqServer, worker_kind: Kind, cell: Cell
) -> None:
    queue = f'from kombu import Queue\nCELERY_TASK_QUEUES = [Queue("{QUEUE}", queue_arguments={IMPATIENT})]'
    # RabbitMQ 4.3 takes the consumer away, earlier versions close its channel.
    cancelled = worker_kind == "stock" and impatient.since(4, 3)
    if worker_kind == "stock" and celery.VERSION < (5, 5):
        pytest.skip("Celery reads quorum queues since 5.5")
    title = f"21: a receiver of a {worker_kind} worker slower than consumer_timeout"
    trial = make_trial(impatient, title, more=queue)
    trial.close_gate()
    with contextlib.ExitStack() as running:
        worker = running.enter_context(trial.worker(worker_kind, "-c", "2"))
        printed = len(impatient.process.output.splitlines())
        trial.send("gated")
        trial.wait_for("at_the_gate", event="began")
        # The channel is closed, and the message goes back, though its receiver runs still.
        if cancelled:
            worker.process.wait_for("Basic.cancel")
        elif worker_kind == "ours":
            worker.process.wait_for("No connection to the broker")
        else:
            impatient.process.wait_for("imeout", since=printed)
        trial.open_gate()
        trial.send("heard", 3)
        if not cell.holds and not cancelled:
            worker.process.wait_for("Unrecoverable error")
            worker.process.wait(30)
            running.enter_context(trial.worker(worker_kind, name="the next"))
        trial.wait_for("second", 3)
        trial.wait_for("at_the_gate")
        eventually(lambda: trial.project.queues() == {}, "an empty queue")
        assert worker.process.running() == (cell.holds or cancelled)
    trial.verdict().require()
