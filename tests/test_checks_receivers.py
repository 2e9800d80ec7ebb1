"""`manage.py check` of signals and receivers: what it names fails, and what works it says nothing of."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import pytest

from conftest import MakeProject
from servers.project import Project, Report
from servers.sqlite import SqliteBroker


@pytest.fixture
def told(make_project: MakeProject, sqlite_broker: SqliteBroker) -> Any:
    """`told("…receivers…")`: what is said of an app whose `ready()` imports a module of receivers, and what they do."""

    def tell(receivers: str, signals: str = "heard = AsyncSignal()", ready: str = "") -> Told:
        project = make_project(sqlite_broker, settings="INSTALLED_APPS = [*INSTALLED_APPS, 'heard']")
        app = project.folder / "heard"
        app.mkdir()
        (app / "signals.py").write_text(f"from async_signals import AsyncSignal\n{dedent(signals)}")
        (app / "receivers.py").write_text(HEADER + dedent(receivers).lstrip())
        ready = dedent(ready).lstrip() or "from heard import receivers"
        (app / "apps.py").write_text(READY + "\n".join(" " * 8 + line for line in ready.splitlines()) + "\n")
        (app / "__init__.py").write_text("")
        return Told(project)

    return tell


HEADER = """\
import functools
from django.dispatch import receiver
from heard import signals
from heard.signals import *
from shopapp.effects import record


def note(sender, **kwargs):
    record("note", sender)


"""
READY = """\
from django.apps import AppConfig


class HeardConfig(AppConfig):
    name = "heard"

    def ready(self):
"""


class Told:
    """What the checks say of a project, and what comes of a send."""

    def __init__(self, project: Project) -> None:
        report = project.run(
            """
            from django.core.checks import run_checks
            from heard.signals import heard
            messages = [[each.id.rpartition(".")[2], f"{each.msg} {each.hint}"] for each in run_checks()]
            # As a worker runs them, but here: through the wire.
            from proj.celery import app
            app.conf.task_always_eager = True
            result = [messages, [str(answer) for _, answer in heard.send("web", order=5)]]
            """
        )
        messages, self.answers = report.result
        self.output = report.output
        self.ids = [each for each, _ in messages]
        self.text = "\n".join(text for _, text in messages)


#: Receivers of one signal each that are gone as soon as they are connected, and what is said of them.
GONE = {
    "a function within ready": (
        "",
        """
        from heard.signals import heard
        from django.dispatch import receiver
        @receiver(heard)
        def listen(sender, **kwargs):
            pass
        """,
        "heard.apps.HeardConfig.ready.<locals>.listen",
        "apps.py:10",
    ),
    "a lambda": ("heard.connect(lambda sender, **kwargs: None)", "", "heard.receivers.<lambda>", "receivers.py:12"),
    "a partial": ("heard.connect(functools.partial(note, what=1))", "", "heard.receivers.note", "receivers.py:12"),
    "a method of a temporary": (
        """
        class Listener:
            def listen(self, sender, **kwargs): ...
        heard.connect(Listener().listen)
        """,
        "",
        "heard.receivers.Listener.listen",
        "receivers.py:14",
    ),
    "a temporary that refers to itself": (
        """
        class Listener:
            def __init__(self):
                self.me = self
                heard.connect(self.listen)
            def listen(self, sender, **kwargs): ...
        Listener()
        """,
        "",
        "heard.receivers.Listener.listen",
        "receivers.py:15",
    ),
    "a callable object": (
        """
        class Listener:
            def __call__(self, sender, **kwargs): ...
        heard.connect(Listener())
        """,
        "",
        "heard.receivers.Listener",
        "receivers.py:14",
    ),
    "one of two of a name": (
        """
        @receiver(heard)
        def _(sender, **kwargs): ...
        @receiver(signals.other)
        def _(sender, **kwargs): ...
        """,
        "",
        "heard.receivers._",
        "receivers.py:12",
    ),
    "what a decorator has replaced": (
        """
        def quiet(function):
            return lambda sender, **kwargs: None
        @quiet
        @receiver(heard)
        def listen(sender, **kwargs): ...
        """,
        "",
        "heard.receivers.listen",
        "receivers.py:15",
    ),
    "all but the last of a loop": (
        """
        for sender in ("web", "shop"):
            @receiver(heard, sender=sender)
            def listen(sender, **kwargs): ...
        """,
        "",
        "heard.receivers.listen",
        "receivers.py:13",
    ),
}


class TestAReceiverThatIsGone:
    @pytest.mark.parametrize("what", GONE)
    def test_it_is_named_with_the_line_that_connected_it(self, told: Any, what: str) -> None:
        receivers, ready, name, place = GONE[what]
        found = told(receivers, "heard, other = AsyncSignal(), AsyncSignal()", ready)
        assert found.answers == [], "it never runs"
        assert f"has no receivers here; {name}, connected at" in found.output
        assert found.ids == ["W010"]
        assert f"Receiver {name} of signal heard.signals.heard, connected at" in found.text
        assert place in found.text

    @pytest.mark.parametrize(
        "receivers",
        [
            # Held by somebody, or strongly.
            "hold = lambda sender, **kwargs: None\nheard.connect(hold)",
            "heard.connect(lambda sender, **kwargs: None, weak=False)",
            "kept = functools.partial(note)\nheard.connect(kept)",
            """
            class Listener:
                def listen(self, sender, **kwargs): ...
            listener = Listener()
            heard.connect(listener.listen)
            """,
            # In the place of one that is gone.
            """
            heard.connect(lambda sender, **kwargs: None, dispatch_uid="the one")
            heard.connect(note, dispatch_uid="the one")
            """,
            """
            def begin():
                global listen
                listen = lambda sender, **kwargs: None
                heard.connect(listen)
            begin()
            begin()
            """,
            # Connected by a module that is run anew.
            """
            import importlib, sys
            @receiver(heard)
            def listen(sender, **kwargs): ...
            if not hasattr(signals, "again"):
                signals.again = True
                importlib.reload(sys.modules["heard.receivers"])
            """,
            """
            import importlib, sys
            if not hasattr(signals, "again"):
                signals.again = True
                del sys.modules["heard.receivers"]
                importlib.import_module("heard.receivers")
            @receiver(heard)
            def listen(sender, **kwargs): ...
            """,
        ],
    )
    def test_nothing_is_said_of_one_that_runs(self, told: Any, receivers: str) -> None:
        found = told(receivers)
        assert found.answers
        assert found.ids == []

    @pytest.mark.parametrize(
        "receivers",
        [
            """
            def begin():
                def listen(sender, **kwargs): ...
                heard.connect(listen)
                heard.disconnect(listen)
            begin()
            """,
            """
            heard.connect(lambda sender, **kwargs: None, dispatch_uid="the one")
            heard.disconnect(dispatch_uid="the one")
            """,
            # It never was connected: another one has its place.
            """
            heard.connect(note, dispatch_uid="the one", weak=False)
            heard.connect(lambda sender, **kwargs: None, dispatch_uid="the one")
            heard.disconnect(dispatch_uid="the one")
            """,
        ],
    )
    def test_nothing_is_said_of_one_that_was_disconnected(self, told: Any, receivers: str) -> None:
        assert told(receivers).ids == []


class TestAReceiverThatCannotBeCalled:
    @pytest.mark.parametrize(
        ("receivers", "said"),
        [
            ("@receiver(heard)\ndef listen(sender, order): ...", "it takes no 'signal'"),
            ("@receiver(heard)\ndef listen(order, **kwargs): ...", ""),
            ("@receiver(heard)\nasync def listen(sender): ...", "it takes no 'signal'; it takes no 'order'"),
            ("@receiver(heard)\ndef listen(signal, sender): ...", "it takes no 'order'"),
            ("@receiver(heard)\ndef listen(sender, /, **kwargs): ...", "it takes 'sender' by its position only"),
            ("@receiver(heard)\ndef listen(sender, user, **kwargs): ...", "it needs 'user', which may not be sent"),
            ("def listen(sender): ...\nkept = functools.partial(listen)\nheard.connect(kept)", "it takes no 'signal'"),
            (
                """
                class Listener:
                    def listen(sender, **kwargs): ...
                listener = Listener()
                heard.connect(listener.listen)
                """,
                "it takes no 'sender'",
            ),
        ],
    )
    def test_it_is_named_with_what_it_does_not_take(self, told: Any, receivers: str, said: str) -> None:
        found = told(receivers, "heard = AsyncSignal(providing_args=['order'], strict=True)")
        assert [re.search("argument|positional", answer) is not None for answer in found.answers] == [bool(said)]
        assert found.ids == (["W011"] if said else [])
        assert said in found.text

    @pytest.mark.parametrize(
        "receivers",
        [
            "@receiver(heard)\ndef listen(sender, signal, order): ...",
            "@receiver(heard)\ndef listen(order=None, *args, **kwargs): ...",
            """
            def plainly(function):
                @functools.wraps(function)
                def call(sender, **kwargs):
                    return function(sender)
                return call
            @receiver(heard)
            @plainly
            def listen(sender): ...
            """,
            "from unittest.mock import Mock\nkept = Mock()\nheard.connect(kept)",
        ],
    )
    def test_nothing_is_said_of_one_that_can(self, told: Any, receivers: str) -> None:
        found = told(receivers)
        assert found.answers
        assert found.ids == []


class TestASignalThatCannotBeSent:
    @pytest.mark.parametrize(
        ("signals", "sent"),
        [
            ("all = {'first': AsyncSignal()}", "all['first']"),
            (
                """
                class Shop:
                    def __init__(self):
                        self.opened = AsyncSignal()
                shop = Shop()
                """,
                "shop.opened",
            ),
        ],
    )
    def test_one_without_a_name(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker, signals: str, sent: str
    ) -> None:
        report = checked(make_project(sqlite_broker), signals, sent)
        [[found, text]] = report.result
        assert found == "W007"
        assert "heard/signals.py:" in text
        assert report.failed("NoWireName").rstrip(".") in text

    def test_one_of_two_of_a_name(self, make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
        signals = "other = AsyncSignal(name='heard.signals.opened')\nopened = AsyncSignal()"
        report = checked(make_project(sqlite_broker), signals, "opened")
        [[found, text]] = report.result
        assert found == "W008"
        assert "heard/signals.py:2" in text
        assert "heard/signals.py:3" in text
        assert report.failed("DuplicateSignalName") in text

    def test_one_that_waits_for_a_commit_that_nobody_announces(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker
    ) -> None:
        settings = "DATABASES = {'default': {**shared.DATABASES['default'], 'AUTOCOMMIT': False}}"
        project = make_project(sqlite_broker, settings=settings)
        report = checked(project, "opened = AsyncSignal()", "opened")
        [[found, text]] = report.result
        assert found == "W009"
        assert "'default'" in text
        assert "autocommit is off" in report.failed("TransactionManagementError")
        project = make_project(sqlite_broker, settings=f"{settings}\nASYNC_SIGNALS = {{'on_commit': False}}")
        assert project.run("from django.core.checks import run_checks; result = len(run_checks())").result == 0

    def test_nothing_is_said_of_one_that_can(self, make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
        signals = """
        given = {"name": AsyncSignal(name="given")}
        first = second = AsyncSignal()
        class Shop:
            opened = AsyncSignal()
        AsyncSignal().connect(print, weak=False)  # nobody has it
        """
        report = checked(make_project(sqlite_broker), signals, "given['name'], first, Shop.opened")
        assert report.error is None
        assert report.result == []

    def test_nothing_is_said_where_there_is_no_celery(self, make_project: MakeProject) -> None:
        report = checked(make_project(None), "all = {'first': AsyncSignal()}", "")
        assert report.result == []


def checked(project: Project, signals: str, sent: str) -> Report:
    """What is said of signals that a module has, and what comes of sending them."""
    folder = project.folder / "heard"
    folder.mkdir()
    (folder / "signals.py").write_text(f"from async_signals import AsyncSignal\n{dedent(signals).lstrip()}")
    return project.attempt(
        f"""
        from django.core.checks import run_checks
        from django.db import connection
        import heard.signals
        result = [[each.id.rpartition(".")[2], each.msg] for each in run_checks()]
        connection.ensure_connection()
        def send():  # whose variables are no module's, which would name a signal
            for signal in eval("[{sent}]", vars(heard.signals)):
                signal.send("web")
        send()
        """
    )
