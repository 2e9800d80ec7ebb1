"""Other Celery tasks on the queues of signals: what a worker of ours does with them is what Celery does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import dedent
from typing import Any
from uuid import uuid4

import pytest

from conftest import MakeProject
from servers.project import Broker, Project
from servers.worker import KINDS, Kind, Worker

SETTINGS = """
    CELERY_RESULT_BACKEND = f"db+sqlite:///{shared._folder / 'results.sqlite3'}"
    CELERY_RESULT_EXTENDED = True
"""


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def lasting(make_lasting_project: MakeProject, broker: Broker, kind: Kind) -> Project:
    return make_lasting_project(broker, settings=SETTINGS)


@pytest.fixture(scope="module")
def running(lasting: Project, kind: Kind) -> Iterator[Worker]:
    with lasting.worker(kind=kind, options=["--hostname", "shop@%h"]) as worker:
        yield worker


@pytest.fixture
def shop(lasting: Project, running: Worker) -> Project:
    """A project with a worker, which all tests share."""
    return lasting


def ask(project: Project, code: str) -> Any:
    """Runs code with the tasks at hand and returns its `result`."""
    return project.run("from celery import chain, chord\nfrom shopapp import tasks\n" + dedent(code)).result


def test_results_are_stored(shop: Project) -> None:
    told = ask(
        shop,
        """
        early, late = tasks.add.delay(2, 3), tasks.add_late.delay(4, 5)
        result = [early.get(timeout=30), late.get(timeout=30), early.status, early.name, early.args, early.worker]
        """,
    )
    assert told[:5] == [5, 9, "SUCCESS", "shopapp.tasks.add", [2, 3]]
    assert told[5].startswith("shop@")


def test_a_failure_is_stored_and_its_errback_called(shop: Project) -> None:
    key = uuid4().hex
    told = ask(
        shop,
        f"""
        sent = tasks.fail.apply_async([{key!r}], link_error=tasks.note_failure.s())
        error = sent.get(timeout=30, propagate=False)
        result = [sent.id, sent.status, type(error).__name__, str(error), "LookupError" in sent.traceback]
        """,
    )
    assert told[1:] == ["FAILURE", "LookupError", key, True]
    shop.effects.wait_until(
        lambda: any(effect["arguments"]["failed"] == told[0] for effect in shop.effects.seen("note_failure")),
        "the errback",
    )


def test_retries(shop: Project) -> None:
    key = uuid4().hex
    assert ask(shop, f"result = tasks.third_time_lucky.delay({key!r}).get(timeout=30)") == 2
    tries = [effect["arguments"] for effect in shop.effects.seen("third_time_lucky")]
    assert [each["retries"] for each in tries if each["key"] == key] == [0, 1, 2]


@pytest.mark.parametrize("task", ["reject", "ignore"])
def test_a_task_that_is_rejected_or_ignored_is_gone(shop: Project, task: str) -> None:
    key = uuid4().hex
    ask(shop, f"tasks.{task}.delay({key!r}); result = tasks.add.delay(0, 0).get(timeout=30)")
    assert [effect for effect in shop.effects.seen(task) if effect["arguments"]["key"] == key]
    assert shop.queues() == {}


def test_chains_and_chords(shop: Project) -> None:
    assert ask(shop, "result = chain(tasks.add.s(1, 2), tasks.add.s(4), tasks.add_late.s(8))().get(timeout=30)") == 15
    assert ask(shop, "result = chord(tasks.add.s(n, n) for n in range(4))(tasks.total.s()).get(timeout=30)") == 12


def test_a_bound_task_sees_its_request(shop: Project) -> None:
    sent, seen = ask(
        shop,
        """
        sent = tasks.describe.apply_async(headers={"trace": "x1"})
        result = [sent.id, sent.get(timeout=30)]
        """,
    )
    assert seen == {
        "id": sent,
        "root": sent,
        "correlation_id": sent,
        "routing_key": "celery",
        "exchange": seen["exchange"],
        "redelivered": seen["redelivered"],
        "hostname": "shop",
        "headers": seen["headers"],
        "eager": False,
    }
    assert not seen["redelivered"]
    assert seen["exchange"] in {"", "celery"}
    assert (seen["headers"] or {}).get("trace", "x1") == "x1"


def test_a_countdown_and_an_expiry(shop: Project) -> None:
    told = ask(
        shop,
        """
        late = tasks.add.apply_async([1, 1], expires=-1)
        due = tasks.add.apply_async([1, 2], countdown=0.5)
        result = [due.get(timeout=30)]
        late.get(timeout=30, propagate=False)
        result.append(late.status)
        """,
    )
    assert told == [3, "REVOKED"]


def test_database_connections_are_closed_between_tasks(shop: Project) -> None:
    assert ask(shop, "result = [tasks.has_fresh_connection.delay().get(timeout=30) for _ in range(3)]") == [
        True,
        True,
        True,
    ]


def test_signals_between_tasks(shop: Project) -> None:
    key = uuid4().hex
    ask(
        shop,
        f"""
        from shopapp.signals import my_signal
        my_signal.send(None, key={key!r})
        result = tasks.add.delay(0, 0).get(timeout=30)
        """,
    )
    shop.effects.wait_until(
        lambda: any(effect["arguments"].get("key") == key for effect in shop.effects.seen("mine")), "the signal"
    )


def test_a_stop_waits_for_a_task_that_was_acknowledged_before_it_ran(
    make_project: MakeProject, broker: Broker, kind: Kind
) -> None:
    project = make_project(broker)
    with project.worker(kind=kind) as worker:
        ask(project, "tasks.take_long.delay(2.5)")
        project.effects.wait_for(1, "take_long")
        assert worker.stop() == 0
    assert [effect["arguments"]["ended"] for effect in project.effects.seen("take_long")] == [False, True]
    assert project.queues() == {}


@pytest.mark.parametrize("kind", ["ours"], indirect=True)
class TestWhatCannotRun:
    """Ours dead-letters it; Celery's own worker acknowledges it with a line in its log."""

    def dead_letter(self, shop: Project, running: Worker, sent: str) -> dict[str, Any]:
        running.process.wait_for(sent)
        (message,) = shop.take("celery.dead")
        assert message.headers["id"] == sent
        why: dict[str, Any] = message.headers["async_signals"]["parked"]
        assert why["queue"] == "celery"
        return why

    def test_an_unknown_task(self, shop: Project, running: Worker) -> None:
        sent = ask(shop, "from proj.celery import app; result = app.send_task('nobody.knows', [1]).id")
        assert self.dead_letter(shop, running, sent)["kind"] == "UnknownTask"

    def test_content_that_is_not_accepted(self, shop: Project, running: Worker) -> None:
        sent = ask(shop, "result = tasks.add.apply_async([1, 2], serializer='pickle').id")
        why = self.dead_letter(shop, running, sent)
        assert why["kind"] == "Refused"
        assert "pickle" in why["reason"]

    @pytest.mark.parametrize("body", ["not json", json.dumps([[1, 2], {}]), json.dumps("text")])
    def test_a_body_that_cannot_be_read(self, shop: Project, running: Worker, body: str) -> None:
        sent = ask(
            shop,
            f"""
            from uuid import uuid4
            from proj.celery import app
            result = str(uuid4())
            with app.producer_or_acquire() as producer:
                producer.publish(
                    {body!r}, routing_key="celery", exchange="", headers={{"task": "shopapp.tasks.add", "id": result}},
                    content_type="application/json", content_encoding="utf-8", correlation_id=result,
                )
            """,
        )
        assert self.dead_letter(shop, running, sent)["kind"] == "Malformed"
