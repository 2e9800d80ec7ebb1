"""What a user can get wrong: each a clear, typed error at the earliest place, that says what to do."""

from __future__ import annotations

import time

import pytest

from conftest import MakeProject
from servers.project import Broker, Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

SECRET = "s3cr3t-never-shown"


@pytest.fixture
def plain(make_project: MakeProject, redis_server: RedisServer) -> Project:
    """A project whose broker is there, for mistakes that no broker sees."""
    return make_project(redis_server)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ('AsyncSignal(qeue="high_priority")', "TypeError", ["qeue"]),
        ('AsyncSignal(durability="outbox")', "ValueError", ["outbox", "confirmed"]),
        ('AsyncSignal(durability="certain")', "ValueError", ["certain", "confirmed", "background"]),
        ('AsyncSignal(on_missing="ignore")', "ValueError", ["ignore", "raise", "skip", "none"]),
        ("AsyncSignal(priority=256)", "ValueError", ["priority", "255"]),
        ("AsyncSignal(priority=True)", "ValueError", ["priority"]),
        ("AsyncSignal(expires=-1)", "ValueError", ["expires", "seconds"]),
        ("AsyncSignal(queue=5)", "TypeError", ["queue", "5"]),
        ('AsyncSignal(queue="")', "TypeError", ["queue"]),
        ('AsyncSignal(providing_args="host")', "TypeError", ["providing_args", "('host',)"]),
        ("AsyncSignal(providing_args=(1,))", "TypeError", ["providing_args", "1"]),
        ("AsyncSignal(strict=True)", "TypeError", ["strict", "providing_args"]),
        ("my_signal.options(cuontdown=5)", "TypeError", ["cuontdown"]),
        ('my_signal.options(durability="outbox")', "ValueError", ["outbox", "confirmed"]),
        ('my_signal.options(task_id="5").send(None)', "ValueError", ["task_id", "UUID"]),
        ("my_signal.send(None, signal=5)", "TypeError", ["signal"]),
        ("my_signal.send(None, what=object())", "TypeError", ["what", "object"]),
        ('my_signal.send(None, order={"lines": [1, {"price": object()}]})', "TypeError", ["order", "lines", "[1]"]),
        ("my_signal.send(object())", "TypeError", ["sender", "object"]),
        ('my_signal.send(None, price=float("nan"))', "ValueError", ["price", "NaN"]),
        ('my_signal.send(None, price=[float("-inf")])', "ValueError", ["price[0]", "infinities"]),
        ("my_signal.send(None, deep=deep(70))", "ValueError", ["deep", "64"]),
        ('my_signal.send(None, big="x" * 2_000_000)', "ValueError", ["1048576"]),
        ('my_signal.send(None, table={"__type__": "x", "__value__": 1})', "TypeError", ["table", "__type__"]),
        ("my_signal.send(None, order=Order())", "ValueError", ["order", "save it first"]),
        ("my_signal.send(Order())", "ValueError", ["sender", "save it first"]),
        ("my_signal.send(None, when=lambda: 1)", "TypeError", ["when", "function"]),
        ("local().send(None)", "NoWireName", ["name="]),
        ("AsyncSignal().send(None)", "NoWireName", ["name="]),
    ],
)
def test_the_error_says_what_is_wrong(plain: Project, code: str, kind: str, words: list[str]) -> None:
    report = plain.attempt(
        f"""
        from async_signals import AsyncSignal
        from shopapp.models import Order
        from shopapp.signals import my_signal

        def deep(levels):
            return [deep(levels - 1)] if levels else []

        def local():
            inside = AsyncSignal()
            return inside

        {code}
        """
    )
    text = report.failed(kind)
    for word in words:
        assert word in text
    assert plain.queues() == {}, "nothing was sent"


def test_two_signals_of_one_name(plain: Project) -> None:
    (plain.folder / "twice.py").write_text(
        'from async_signals import AsyncSignal\none = AsyncSignal(name="same")\nother = AsyncSignal(name="same")\n'
    )
    text = plain.attempt("import twice").failed("DuplicateSignalName")
    assert "'same'" in text
    assert "twice.py:2" in text
    assert "twice.py:3" in text


class TestUndeclaredArguments:
    def test_it_warns_at_the_callers_line_and_sends(self, plain: Project) -> None:
        report = plain.attempt(
            """
            from shopapp.signals import order_placed
            order_placed.send("web", order_id=5, colour="red")
            """
        )
        assert report.error is None
        [warning] = report.warned("UndeclaredArgument")
        assert "UserWarning" in warning["kinds"]
        assert "'colour'" in warning["text"]
        assert "order_id" in warning["text"]
        assert (warning["file"], warning["line"]) == ("<snippet>", 3)
        assert plain.queues() == {"celery": 1}

    def test_strict_refuses(self, plain: Project) -> None:
        report = plain.attempt(
            """
            from async_signals import AsyncSignal
            AsyncSignal(providing_args=("order_id",), strict=True, name="shop.strict").send("web", colour="red")
            """
        )
        assert "'colour'" in report.failed("TypeError")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"publish_timout": 1}', ["publish_timout", "publish_timeout"]),
        ('{"publish_timeout": 0}', ["publish_timeout"]),
        ('{"publish_timeout": "5"}', ["publish_timeout"]),
        ('{"durability": "outbox"}', ["durability", "outbox"]),
        ('{"dead_letters": True}', ["dead_letters", "False"]),
        ('{"app": "proj.celery.nothing"}', ["app", "proj.celery.nothing"]),
        ('["app"]', ["dict"]),
    ],
)
def test_wrong_settings(make_project: MakeProject, redis_server: RedisServer, settings: str, words: list[str]) -> None:
    """Said by the first send, and by `manage.py check`, before anything is sent."""
    project = make_project(redis_server, settings=f"ASYNC_SIGNALS = {settings}")
    report = project.attempt("from shopapp.signals import my_signal; my_signal.send(None)")
    text = report.failed("ImproperlyConfigured")
    checked = project.python("-m", "manage", "check")
    assert checked.returncode == 1
    for word in words:
        assert word in text
        assert word in checked.stderr


class TestBrokerSettings:
    @pytest.mark.parametrize("url", [f"gopher://user:{SECRET}@localhost/0", f"redsi://:{SECRET}@localhost"])
    def test_an_unknown_scheme(self, make_project: MakeProject, url: str) -> None:
        project = make_project(None, url=url)
        start = time.monotonic()
        report = project.attempt("from shopapp.signals import my_signal; my_signal.send(None)")
        assert report.error is not None
        assert {"SignalNotSent", "ImproperlyConfigured"} & set(report.error["kinds"]), report.error["traceback"]
        assert url.partition(":")[0] in report.error["text"]
        assert SECRET not in report.output
        assert time.monotonic() - start < 15

    def test_the_broker_in_the_projects_database(self, make_project: MakeProject) -> None:
        project = make_project(None)
        with (project.folder / "local_settings.py").open("a") as settings:
            settings.write("CELERY_BROKER_URL = f\"sqla+sqlite:///{shared.DATABASES['default']['NAME']}\"\n")
        text = project.attempt("from shopapp.signals import my_signal; my_signal.send(None)").failed(
            "ImproperlyConfigured"
        )
        assert "DATABASES['default']" in text
        assert "broker_url" in text
        assert "DATABASES['default']" in project.python("-m", "manage", "check").stderr

    def test_a_queue_that_may_not_be_made(self, make_project: MakeProject, broker: Broker) -> None:
        project = make_project(
            broker,
            settings="""
                from kombu import Queue
                CELERY_TASK_QUEUES = [Queue("celery")]
                CELERY_TASK_CREATE_MISSING_QUEUES = False
                """,
        )
        report = project.attempt("from shopapp.signals import routed_signal; routed_signal.send(None)")
        text = report.failed("SignalNotSent")
        assert "high_priority" in text
        assert "task_queues" in text
        assert project.queues() == {}

    @pytest.mark.parametrize("way", ["the first send", "after another one"])
    def test_a_queue_that_is_there_with_other_arguments(
        self, make_project: MakeProject, rabbitmq_server: RabbitmqServer, way: str
    ) -> None:
        """A named error at once, and no loop; other queues are not held up by it."""
        project = make_project(rabbitmq_server, settings='ASYNC_SIGNALS = {"publish_timeout": 20}')
        first = "my_signal.send(None)" if way == "after another one" else ""
        report = project.attempt(
            f"""
            from kombu import Queue
            from proj.celery import app
            from shopapp.signals import my_signal, routed_signal
            with app.connection_for_write() as connection, connection.channel() as channel:
                Queue("high_priority", max_priority=5, channel=channel).declare()
            {first}
            import time
            from async_signals import SignalNotSent
            start = time.monotonic()
            try:
                routed_signal.send(None)
            except SignalNotSent as error:
                result = [str(error), error.code, time.monotonic() - start]
            my_signal.send(None)
            """
        )
        assert report.error is None, report.error["traceback"]
        text, code, seconds = report.result
        assert code == "precondition_failed"
        assert "high_priority" in text
        assert seconds < 10
        assert project.queues() == {"celery": 2 if first else 1}


class TestAnOldWorker:
    def test_it_loses_nothing_that_is_newer_than_itself(self, plain: Project) -> None:
        """A signal that a worker does not have is dead-lettered, and a marker it does not know stays a reference."""
        plain.run(
            """
            from async_signals import AsyncSignal
            import sys, types
            newer = types.ModuleType("newer")
            sys.modules["newer"] = newer
            newer.signal = AsyncSignal(name="newer.signal")
            newer.signal.send("web", number=1)
            import proj
            marker = {"__type__": "async_signals", "__value__": ["of the future", 1, 2]}
            proj.celery_app.send_task("async_signals.propagate", ("shopapp.signals.my_signal", None), {"what": marker})
            proj.celery_app.send_task("async_signals.propagate", ("shopapp.signals.my_signal", None), {"what": 1})
            """
        )
        with plain.worker() as worker:
            plain.effects.wait_until(
                lambda: any(effect["arguments"] == {"what": 1} for effect in plain.effects.seen("mine")), "the last one"
            )
            plain.run_the_last(worker)
        waiting = plain.queues()
        assert waiting == {"celery.dead": 2}, waiting
        letters = plain.take("celery.dead")
        assert "newer.signal" in str(letters[0].body)
        assert "of the future" in str(letters[1].body)
