"""Signals that do not leave the process: eager ones, and captured ones."""

from __future__ import annotations

import pytest

from servers.project import Project
from servers.redis import RedisServer


@pytest.fixture
def here(make_project, redis_server: RedisServer) -> Project:  # noqa: ANN001 - a fixture of conftest's
    return make_project(redis_server)


class TestEager:
    def test_receivers_meet_what_a_worker_would_meet(self, here: Project) -> None:
        report = here.run(
            """
            import proj
            proj.celery_app.conf.task_always_eager = True
            from shopapp.signals import unheard
            kept = []
            def keep(sender, **kwargs):
                kept.append((sender, kwargs["rows"]))
                return "kept"
            unheard.connect(keep)
            rows = [(1, {2})]
            sent = unheard.send("web", rows=rows)
            result = [kept[0][1] == rows, kept[0][1] is rows, [pair[1] for pair in sent], len(sent.id)]
            """
        )
        assert report.result == [True, False, ["kept"], 36]
        assert here.queues() == {}

    def test_what_could_not_be_sent_fails_here_too(self, here: Project) -> None:
        report = here.attempt(
            """
            import proj
            proj.celery_app.conf.task_always_eager = True
            from shopapp.signals import my_signal
            my_signal.send("web", what={"deep": [object()]})
            """
        )
        assert "what.deep[0]" in report.failed("TypeError")

    def test_errors_propagate_where_celery_propagates_them(self, here: Project) -> None:
        code = """
            import proj
            proj.celery_app.conf.task_always_eager = True
            proj.celery_app.conf.task_eager_propagates = {}
            from shopapp.signals import my_signal
            def fails(sender, **kwargs):
                raise ArithmeticError("no")
            my_signal.connect(fails)
            result = [type(pair[1]).__name__ for pair in my_signal.send("web")]
            """
        assert here.attempt(code.format(True)).failed("ArithmeticError") == "no"
        assert here.attempt(code.format(False)).result == ["NoneType", "ArithmeticError"]


class TestCapturing:
    def test_it_records_in_order_and_sends_nothing(self, here: Project) -> None:
        report = here.run(
            """
            from async_signals.testing import capture_signals
            from shopapp.signals import my_signal, order_placed
            with capture_signals() as captured:
                id = my_signal.send("web", a=1).id
                order_placed.options(countdown=3).send(None, order_id=5)
            first, second = captured
            result = [first.signal is my_signal, first.sender, first.kwargs, first.id == id,
                      second.kwargs, second.options]
            """
        )
        assert report.result == [True, "web", {"a": 1}, True, {"order_id": 5}, {"countdown": 3}]
        assert here.queues() == {}

    def test_only_some_signals(self, here: Project) -> None:
        here.run(
            """
            from async_signals.testing import capture_signals
            from shopapp.signals import my_signal, order_placed
            with capture_signals(order_placed) as captured:
                my_signal.send("web")
                order_placed.send(None, order_id=5)
            assert [each.signal for each in captured] == [order_placed]
            """
        )
        assert here.queues() == {"celery": 1}

    def test_what_could_not_be_sent_raises(self, here: Project) -> None:
        report = here.attempt(
            """
            from async_signals.testing import capture_signals
            from shopapp.signals import my_signal
            with capture_signals():
                my_signal.send("web", what=object())
            """
        )
        assert "what" in report.failed("TypeError")
