"""Every sentence of the project's first description, run as it was written, on each broker.

"In INSTALLED_APPS and without" is the first parameter of each test, the broker the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from conftest import MakeProject
from servers.project import SOURCE, Broker, Project
from servers.worker import Worker

PROPAGATE = "async_signals.propagate"


@pytest.fixture(scope="module", params=[True, False], ids=["installed", "bare"])
def installed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@dataclass
class Served:
    """A project with a worker."""

    project: Project
    worker: Worker


@pytest.fixture(scope="module")
def _served(make_lasting_project: MakeProject, broker: Broker, installed: bool) -> Iterator[Served]:
    project = make_lasting_project(broker, installed=installed)
    with project.worker() as worker:
        yield Served(project, worker)


@pytest.fixture
def served(_served: Served) -> Served:
    _served.project.effects.clear()
    return _served


@pytest.fixture
def unserved(make_project: MakeProject, broker: Broker, installed: bool) -> Project:
    """A project whose worker has not come yet, so that its queues can be looked into."""
    return make_project(broker, installed=installed)


class TestSendingAnAsyncSignal:
    def test_send_just_like_a_normal_one(self, served: Served) -> None:
        served.project.run(
            """
            from async_signals.signals import request_started
            request_started.send(None)
            """
        )
        [effect] = served.project.effects.wait_for(1, "started")
        assert effect["sender"] is None

    def test_a_task_is_sent_to_celery(self, unserved: Project) -> None:
        sent = unserved.run(
            """
            from async_signals.signals import request_started
            sent = request_started.send(None)
            result = {"id": sent.id, "responses": list(sent)}
            """
        )
        assert sent.result["responses"] == []
        assert unserved.effects.seen() == []
        [message] = unserved.take("celery")
        assert message.headers["task"] == PROPAGATE
        assert message.headers["id"] == sent.result["id"] == message.properties["correlation_id"]
        args, kwargs, _ = message.decode()
        assert args == ["async_signals.signals.request_started", None]
        assert kwargs == {}

    def test_the_worker_propagates_it_to_every_listener(self, unserved: Project) -> None:
        """What was sent before the worker came is waiting for it."""
        sender = unserved.run(
            """
            import os
            from async_signals.signals import request_finished
            request_finished.send("web")
            result = os.getpid()
            """
        )
        with unserved.worker() as worker:
            effects = unserved.effects.wait_for(2)
            worker.process.wait_for("Request finished!")
            unserved.run_the_last(worker)
        assert [effect["receiver"] for effect in effects] == ["my_callback", "decorated"]
        assert {effect["sender"] for effect in effects} == {"web"}
        assert effects[0]["pid"] == effects[1]["pid"] != sender.result
        assert unserved.queues() == {}


@pytest.mark.parametrize("lacking", ["broker", "app", "celery"])
def test_without_celery_it_warns_and_runs_the_receivers_here(
    make_project: MakeProject, installed: bool, lacking: str
) -> None:
    project = make_project(None, installed=installed)
    if lacking != "broker":
        without_app(project)
    hide = "import sys; sys.modules.update(dict.fromkeys(['celery', 'kombu', 'amqp', 'billiard', 'vine']))"
    (project.folder / "sitecustomize.py").write_text(hide if lacking == "celery" else "")
    report = project.attempt(
        """
        import os
        from shopapp.signals import order_placed
        sent = order_placed.send("web", order_id=5)
        result = [os.getpid(), [receiver.__name__ for receiver, response in sent]]
        """
    )
    assert report.error is None, report.error["traceback"]
    pid, receivers = report.result
    [effect] = project.effects.wait_for(1)
    assert effect == {"receiver": "ordered", "sender": "web", "arguments": {"order_id": 5}, "pid": pid}
    assert receivers == ["ordered"]
    [warning] = report.warnings
    assert "CeleryNotConfigured" in warning["kinds"]
    assert "UserWarning" in warning["kinds"]
    assert warning["file"] == "<snippet>", "the warning points at the line that sent"


def without_app(project: Project) -> None:
    """Takes the Celery app out of the project, by a `proj` package of its own without one."""
    package = project.folder / "proj"
    package.mkdir()
    for name in ("settings.py", "urls.py"):
        (package / name).write_text((SOURCE / "proj" / name).read_text())
    (package / "__init__.py").write_text("")


class TestRegisteringAReceiver:
    def test_by_hand_and_by_decorator(self, served: Served) -> None:
        served.project.run(
            """
            from async_signals.signals import request_finished
            request_finished.send(None)
            """
        )
        effects = served.project.effects.wait_for(2)
        assert [effect["receiver"] for effect in effects] == ["my_callback", "decorated"]

    def test_the_documented_receiver_prints_in_the_worker(self, served: Served) -> None:
        before = len(served.worker.output.splitlines())
        served.project.run(
            """
            from async_signals.signals import request_finished
            request_finished.send(None)
            """
        )
        served.worker.process.wait_for("Request finished!", since=before)
        # They come by another way than what is printed, and are not to be taken for the next test's.
        served.project.effects.wait_for(2)


class TestDefiningYourOwnSignals:
    def test_my_signal(self, served: Served) -> None:
        served.project.run(
            """
            from shopapp.signals import my_signal
            my_signal.send("anyone", note="free to choose")
            """
        )
        [effect] = served.project.effects.wait_for(1)
        assert (effect["receiver"], effect["sender"]) == ("mine", "anyone")
        assert effect["arguments"] == {"note": "free to choose"}

    def test_arguments_are_passed_along(self, served: Served) -> None:
        served.project.run(
            """
            from shopapp.signals import request_started
            request_started.send(None, host="example.org", path="/index")
            """
        )
        [effect] = served.project.effects.wait_for(1)
        assert effect["receiver"] == "with_arguments"
        assert effect["arguments"] == {"host": "example.org", "path": "/index"}

    def test_a_class_that_sends_reaches_its_own_receivers(self, served: Served) -> None:
        served.project.run(
            """
            from shopapp.models import Order
            from shopapp.signals import order_placed
            order_placed.send(sender=Order, order_id=5)
            order_placed.send(sender="someone else", order_id=6)
            """
        )
        effects = served.project.effects.wait_for(3)
        ran = [(effect["receiver"], effect["arguments"]["order_id"]) for effect in effects]
        assert ran == [("ordered", 5), ("ordered_by_class", 5), ("ordered", 6)]


class TestRoutingViaQueues:
    SEND = """
        from shopapp.signals import routed_signal
        routed_signal.send(None, number=1)
        """

    def test_lands_in_its_queue_and_nowhere_else(self, unserved: Project) -> None:
        unserved.run(self.SEND)
        assert unserved.queues() == {"high_priority": 1}

    def test_only_one_task_however_many_receivers(self, unserved: Project) -> None:
        unserved.run(self.SEND)
        with unserved.worker(queues=["high_priority"]):
            effects = unserved.effects.wait_for(2)
        assert [effect["receiver"] for effect in effects] == ["routed_first", "routed_second"]
        assert effects[0]["pid"] == effects[1]["pid"]

    def test_a_worker_of_another_queue_leaves_it(self, unserved: Project) -> None:
        unserved.run(self.SEND)
        with unserved.worker(queues=["celery"]) as worker:
            unserved.run("from shopapp.signals import my_signal; my_signal.send(None)")
            [effect] = unserved.effects.wait_for(1)
            unserved.run_the_last(worker)
        assert effect["receiver"] == "mine"
        assert unserved.queues() == {"high_priority": 1}

    def test_without_a_queue_celerys_default(self, unserved: Project) -> None:
        unserved.run("from shopapp.signals import my_signal; my_signal.send(None)")
        assert unserved.queues() == {"celery": 1}

    def test_without_a_queue_the_default_that_is_configured(
        self, make_project: MakeProject, broker: Broker, installed: bool
    ) -> None:
        project = make_project(broker, installed=installed, settings='CELERY_TASK_DEFAULT_QUEUE = "everything"')
        project.run("from shopapp.signals import my_signal; my_signal.send(None)")
        assert project.queues() == {"everything": 1}


class TestMixedWithNormalSignals:
    def test_side_by_side(self, served: Served) -> None:
        report = served.project.run(
            """
            import os
            from shopapp.signals import my_signal, synchronous
            responses = synchronous.send("web")
            my_signal.send("web")
            result = [os.getpid(), [receiver.__name__ for receiver, response in responses]]
            """
        )
        here, receivers = report.result
        at_once, mine = sorted(served.project.effects.wait_for(2), key=lambda effect: effect["receiver"])
        assert receivers == ["at_once"]
        assert (at_once["receiver"], mine["receiver"]) == ("at_once", "mine")
        assert at_once["pid"] == here != mine["pid"]
