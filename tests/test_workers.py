"""What a worker does with messages, whichever of the two it is: Celery's own and ours pass one suite.

What they differ in is in `checker/guarantees.py`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from checker.guarantees import cell
from checker.trial import QUEUE, MakeTrial, Trial
from servers.eventually import eventually
from servers.project import Broker
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker
from servers.worker import ENDED, KINDS, Kind, Worker

TASK = "async_signals.propagate"
EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
#: What a worker says when it was told to stop.
STOPPING: dict[Kind, str] = {"stock": "Warm shutdown", "ours": "stopping when what has begun is done"}


@dataclass
class Served:
    """A worker that all tests of a kind and a broker share, and what it was sent."""

    trial: Trial
    worker: Worker

    def all_done(self) -> None:
        """Waits until all that was sent before is done: the worker has one slot."""
        [token] = self.trial.send("heard")
        self.trial.wait_for("second", token=token, timeout=20)


@pytest.fixture(scope="module")
def served(make_lasting_trial: MakeTrial, broker: Broker, worker_kind: Kind) -> Iterator[Served]:
    trial = make_lasting_trial(broker, f"what a {worker_kind} worker does", "checker.retried")
    with trial.worker(worker_kind) as worker:
        yield Served(trial, worker)


def runs(trial: Trial, token: str) -> list[tuple[str, str]]:
    """What the receivers of one message wrote down, in order."""
    trial.read()
    return [(line["receiver"], line["event"]) for line in trial.effects if line["token"] == token]


class TestReceivers:
    def test_they_run_in_the_order_in_which_they_were_connected(self, served: Served) -> None:
        [token] = served.trial.send("gated")
        served.all_done()
        assert runs(served.trial, token) == [
            ("before_the_gate", "done"),
            ("at_the_gate", "began"),
            ("at_the_gate", "done"),
        ]

    def test_messages_are_done_in_their_order(self, served: Served) -> None:
        tokens = served.trial.send("heard", 20)
        served.all_done()
        seen = [line["token"] for line in served.trial.seen("second")]
        assert [token for token in seen if token in tokens] == tokens

    def test_one_of_three_fails(self, served: Served) -> None:
        """The others run once; it is logged with its traceback, and not run again, since it does not say so."""
        assert cell(29, served.worker.kind, "").holds
        printed = len(served.worker.output.splitlines())
        [token] = served.trial.send("failing")
        served.worker.process.wait_for("RuntimeError: the printer is on fire", since=printed)
        served.all_done()
        assert runs(served.trial, token) == [
            ("before_the_failure", "done"),
            ("fails", "began"),
            ("after_the_failure", "done"),
        ]
        log = "\n".join(served.worker.output.splitlines()[printed:])
        assert "Receiver checker.receivers.fails of signal" in log
        assert "Traceback" in log
        eventually(lambda: served.trial.project.queues() == {}, "an empty queue")

    def test_only_those_that_failed_are_tried_again(self, served: Served) -> None:
        """Under the same id, until they succeed or their tries are spent; then a message for them is dead-lettered."""
        trial = served.trial
        [token] = trial.send("retried")
        trial.wait_for("succeeds_at_the_third_try", token=token)
        trial.wait_for("never_succeeds", 3, "began", token=token)
        eventually(lambda: trial.project.queues() == {f"{QUEUE}.dead": 1}, lambda: str(trial.project.queues()))
        [letter] = trial.project.take(f"{QUEUE}.dead")
        ours = letter.headers["async_signals"]
        assert ours["parked"]["kind"] == "ReceiversFailed"
        assert ours["receivers"] == ["checker.retried.never_succeeds"]
        assert "RuntimeError" in ours["parked"]["failures"][0]["error"]
        assert len(trial.seen("succeeds_at_once", token=token)) == 1
        assert [line["attempt"] for line in trial.seen("never_succeeds", "began", token)] == [1, 2, 3]
        assert [line["attempt"] for line in trial.seen("succeeds_at_the_third_try", "began", token)] == [1, 2]
        assert {line["id"] for line in trial.effects if line["token"] == token} == {letter.headers["id"]}

    def test_coroutine_functions(self, served: Served) -> None:
        [token] = served.trial.send("awaited")
        served.all_done()
        assert sorted(runs(served.trial, token)) == [("awaiting", "done"), ("awaiting_too", "done")]

    def test_they_are_told_about_the_delivery(self, served: Served) -> None:
        before = time.time()
        [token] = served.trial.send("told")
        [told] = served.trial.wait_for("asks", token=token)
        assert told["id"] == served.trial.read().ids[token]
        assert (told["signal"], told["queue"], told["attempt"]) == ("checker.signals.told", QUEUE, 1)
        assert before - 1 <= told["sent_at"] <= time.time() + 1

    def test_they_send_on(self, served: Served) -> None:
        trial = served.trial
        before = set(trial.read().outcomes)
        [token] = trial.send("chained")
        trial.wait_for("sends_on", token=token)
        [sent] = set(trial.read().outcomes) - before - {token}
        trial.wait_for("second", token=sent)

    def test_nobody_listens(self, served: Served) -> None:
        printed = len(served.worker.output.splitlines())
        served.trial.send("unheard")
        served.worker.process.wait_for("has no receivers here", since=printed)
        served.all_done()
        eventually(lambda: served.trial.project.queues() == {}, "an empty queue")


class TestTimes:
    def test_a_countdown_holds_up_nobody_else(self, served: Served) -> None:
        start = time.time()
        [later] = served.trial.send("heard", options={"countdown": 1.5})
        [now] = served.trial.send("heard")
        [line] = served.trial.wait_for("second", token=now)
        assert line["time"] - start < 1.5
        [line] = served.trial.wait_for("second", token=later)
        assert line["time"] - start >= 1.5

    def test_what_has_expired_is_not_run(self, served: Served) -> None:
        """Also where it expires while it waits for a slot."""
        trial = served.trial
        trial.close_gate()
        trial.send("gated")
        trial.wait_for("at_the_gate", trial.count("at_the_gate") + 1, "began")
        [token] = trial.send("heard", options={"expires": 0.5})
        over = time.monotonic() + 1
        eventually(lambda: time.monotonic() > over, "it to expire")
        trial.open_gate()
        served.all_done()
        assert runs(trial, token) == []
        eventually(lambda: trial.project.queues() == {}, "an empty queue")


class TestOthersMessages:
    def test_celery_tasks_of_the_app_share_the_queue(self, served: Served) -> None:
        trial = served.trial
        trial.project.run(
            """
            from checker.tasks import foreign, foreign_tried_again
            foreign.delay("a task")
            foreign_tried_again.delay("a task that retries")
            foreign.apply_async(("a task with an eta",), countdown=0.2)
            """
        )
        served.all_done()
        trial.wait_for("foreign", token="a task")
        trial.wait_for("foreign", token="a task with an eta")
        trial.wait_for("foreign_tried_again", token="a task that retries")
        assert runs(trial, "a task that retries") == [("foreign_tried_again", "began"), ("foreign_tried_again", "done")]

    def test_a_signal_that_the_worker_does_not_know(self, served: Served) -> None:
        assert cell(28, served.worker.kind, "").holds
        [token] = served.trial.send("newer")
        eventually(lambda: token in served.trial.dead(), "it to be dead-lettered")
        assert served.trial.books.dead[token] == "UnknownSignal"
        served.all_done()


def headers(**other: object) -> dict[str, object]:
    """Those of a signal's message, with some in other words, and without those that are None."""
    all_of_them = {"task": TASK, "id": str(uuid.uuid4()), "lang": "py", "retries": 0, **other}
    return {name: value for name, value in all_of_them.items() if value is not None}


def body(signal: str = "checker.signals.heard", named: str = '{"token": "forged"}') -> bytes:
    return f'[["{signal}", null], {named}, {json.dumps(EMBEDDED)}]'.encode()


DEEP = "[" * 50_000 + "]" * 50_000
#: What is no message of ours, as its body, its headers and its content type.
MALFORMED: dict[str, tuple[bytes, dict[str, object], str]] = {
    "bytes that are no JSON": (b"\x00\xff garbage", headers(), "application/json"),
    "JSON too deep": (body(named=f'{{"token": {DEEP}}}'), headers(), "application/json"),
    "a task that nobody has": (body(), headers(task="shop.tasks.gone"), "application/json"),
    "pickle": (b"\x80\x04N.", headers(), "application/x-python-serialize"),
    "no headers": (b"{}", {}, "application/json"),
    "a body of two items": (b'[["checker.signals.heard", null], {}]', headers(), "application/json"),
    "a body that is an object": (b'{"signal": "checker.signals.heard"}', headers(), "application/json"),
    "no id": (body(), headers(id=None), "application/json"),
}
#: Celery's worker ends with these.
DEADLY_FOR_CELERY = ("a body of two items", "a body that is an object", "no id")
#: With these it does not go on as it was: Python 3.14 reads what is too deep to be pickled for Celery's pool.
HARMFUL_FOR_CELERY = (*DEADLY_FOR_CELERY, *(("JSON too deep",) if sys.version_info >= (3, 14) else ()))


def put(trial: Trial, what: str) -> bytes:
    """Puts a malformed message into the queue, which is there, and returns its body."""
    raw, named, content_type = MALFORMED[what]
    encoding = "utf-8" if content_type == "application/json" else "binary"
    trial.project.put(QUEUE, raw, named, content_type, encoding)
    return raw


@pytest.mark.parametrize(
    ("worker_kind", "what"),
    [(kind, what) for kind in KINDS for what in MALFORMED if kind == "ours" or what not in HARMFUL_FOR_CELERY],
    indirect=["worker_kind"],
)
def test_a_malformed_message(served: Served, what: str) -> None:
    """It runs nobody and kills nobody. Ours dead-letters it with a reason; Celery takes it for good."""
    trial = served.trial
    served.all_done()
    raw = put(trial, what)
    served.all_done()
    assert runs(trial, "forged") == []
    assert served.worker.process.running()
    if not cell(18, served.worker.kind, "").holds:
        eventually(lambda: trial.project.queues() == {}, lambda: f"an empty queue: {trial.project.queues()}")
        return
    eventually(
        lambda: trial.project.queues() == {f"{QUEUE}.dead": 1}, lambda: f"dead letters: {trial.project.queues()}"
    )
    [letter] = trial.project.take(f"{QUEUE}.dead")
    assert letter.headers["async_signals"]["parked"]["kind"] in {"Malformed", "Refused", "UnknownTask"}
    assert letter.body in {raw, raw.decode("latin-1")}, "it is dead-lettered as it came"


@pytest.mark.parametrize("what", DEADLY_FOR_CELERY)
def test_a_malformed_message_that_celery_does_not_survive(
    make_trial: MakeTrial, sqlite_broker: SqliteBroker, what: str
) -> None:
    assert not cell(18, "stock", "sqlite").holds
    trial = make_trial(sqlite_broker, f"18: {what}, to a stock worker")
    trial.send("unheard")  # the queue is there
    put(trial, what)
    with trial.worker("stock") as worker:
        worker.process.wait_for("Unrecoverable error")
        assert worker.process.wait(ENDED["stock"]) != 0


@pytest.mark.parametrize(("worker_kind", "broker"), [("ours", "redis"), ("ours", "sqlite")], indirect=True)
def test_what_is_no_envelope_at_all(served: Served, broker: RedisServer | SqliteBroker) -> None:
    """Bytes that no client of Celery has written, where a broker keeps messages in envelopes."""
    trial = served.trial
    assert trial.project.url is not None
    served.all_done()  # the queue is there
    broker.put_raw(trial.project.url, QUEUE, b"no envelope")
    served.all_done()
    eventually(
        lambda: trial.project.queues() == {f"{QUEUE}.dead": 1}, lambda: f"dead letters: {trial.project.queues()}"
    )
    [letter] = trial.project.take(f"{QUEUE}.dead")
    assert letter.headers["async_signals"]["parked"]["kind"] == "Malformed"
    assert served.worker.process.running()


class TestStopping:
    def test_it_finishes_what_runs_and_leaves_the_rest(
        self, make_trial: MakeTrial, broker: Broker, worker_kind: Kind
    ) -> None:
        trial = make_trial(broker, f"a {worker_kind} worker stopped and started again")
        trial.close_gate()
        worker = trial.start_worker(worker_kind)
        try:
            trial.send("gated")
            trial.send("heard", 3)
            trial.wait_for("at_the_gate", event="began")
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.process.wait_for(STOPPING[worker_kind])
            trial.open_gate()
            assert worker.process.wait(ENDED[worker_kind]) == 0, worker.output
            assert trial.count("at_the_gate") == 1
            worker.start()
            trial.wait_for("second", 3)
            start = time.monotonic()
            assert worker.stop(ENDED[worker_kind]) == 0, worker.output
            assert time.monotonic() - start < ENDED[worker_kind]
        finally:
            worker.kill()
        verdict = trial.verdict()
        verdict.require()
        assert not verdict.duplicates
        assert trial.project.queues() == {}
