"""Each process has a publisher of its own, however it came to be, and what users hand it holds up no send."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Project
from servers.redis import RedisServer

#: How much longer than it should something may take on a machine that is busy with other tests.
GRACE = 3.0


def test_uwsgi_forks_after_a_first_send(project: Project) -> None:
    """It forks in C and preloads by default, and tells Python neither."""
    uwsgi = Path(sys.executable).with_name("uwsgi")
    assert uwsgi.exists(), "requirements/dev.txt has uWSGI"
    port = free_port()
    server = project.start(
        *("-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", str(uwsgi)),
        *("--master", "--processes", "2", "--enable-threads", "--need-app", "--die-on-term"),
        *("--http-socket", f"127.0.0.1:{port}", "--module", "proj.preloaded:application"),
    )
    try:
        server.wait_for("spawned uWSGI worker 2")
        answered: list[str] = []
        while len(set(answered)) < 2 and len(answered) < 500:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/order?id={len(answered) + 1}", timeout=30) as page:
                answered.append(page.read().decode())
    finally:
        server.stop()
    assert len(set(answered)) == 2, "both workers have answered"
    assert sorted(project.taken_arguments("order_id")) == [*range(len(answered) + 1)]


class TestWhatUsersHandOver:
    SETTINGS = """
    ASYNC_SIGNALS = {"publish_timeout": 1, "buffer_size": 5, "flush_timeout": 0.5, "on_failure": "proj.slow.on_failure"}
    """

    def test_a_slow_on_failure_delays_no_send(self, make_project: MakeProject, rabbitmq_server: object) -> None:
        """Nor does one that raises, and it is called for each signal that was lost."""
        project = make_project(rabbitmq_server, settings=self.SETTINGS)
        report = project.run(
            """
            import time
            from proj import slow
            from shopapp.signals import buffered, my_signal
            my_signal.send(None, number=1)
            # No queue can be declared of that name: the broker refuses it, after the send has returned.
            buffered.options(queue="amq.refused").send(None)
            assert slow.called.wait(20)
            start = time.monotonic()
            my_signal.send(None, number=2)
            result = time.monotonic() - start
            slow.go_on.set()
            """
        )
        assert report.result < 1
        assert project.taken_arguments("number") == [1, 2]

    def test_a_slow_log_handler_delays_no_send(self, make_project: MakeProject, rabbitmq_server: object) -> None:
        project = make_project(rabbitmq_server, settings='ASYNC_SIGNALS = {"publish_timeout": 1}')
        report = project.run(
            """
            import logging, time
            from proj import slow
            from shopapp.signals import buffered, my_signal
            my_signal.send(None, number=1)
            class Handler(logging.Handler):
                def emit(self, record):
                    slow.on_failure(None, "", None)
            logging.getLogger("async_signals").addHandler(Handler())
            buffered.options(queue="amq.refused").send(None)
            assert slow.called.wait(20)
            start = time.monotonic()
            my_signal.send(None, number=2)
            result = time.monotonic() - start
            slow.go_on.set()
            """
        )
        assert report.result < 1
        assert project.taken_arguments("number") == [1, 2]

    def test_calls_of_on_failure_are_bounded(self, make_project: MakeProject) -> None:
        project = make_project(
            None,
            url=f"redis://127.0.0.1:{free_port()}/0",
            settings="""
            ASYNC_SIGNALS = {"publish_timeout": 0.3, "flush_timeout": 0.1, "on_failure": "proj.slow.on_failure"}
            """,
        )
        project.migrate()
        report = project.run(
            """
            from django.db import transaction
            from proj import slow
            from shopapp.signals import my_signal
            with transaction.atomic():
                for number in range(1200):
                    my_signal.send(None)
            assert slow.called.wait(20)
            """
        )
        assert report.output.count("was not sent") == 1200
        assert report.output.count("on_failure is too slow") == 1


def test_a_background_send_passes_four_files(make_project: MakeProject, redis_server: RedisServer) -> None:
    """The way of a send is short enough to be read: ARCHITECTURE.md names the files."""
    project = make_project(redis_server)
    project.migrate()
    report = project.run(
        """
        import sys
        from pathlib import Path
        from shopapp.models import Order
        from shopapp.signals import buffered
        Order.objects.count()  # so that there is a connection to look at
        buffered.send(None, number=1)
        passed = {}
        def look(frame, event, argument):
            path = Path(frame.f_code.co_filename)
            if event == "call" and "async_signals" in path.parts:
                passed[str(path.relative_to(path.parents[path.parts[::-1].index("async_signals") - 1]))] = None
        sys.setprofile(look)
        buffered.send(None, number=2)
        sys.setprofile(None)
        result = list(passed)
        """
    )
    assert report.result == ["dispatcher.py", "sending.py", "routing/__init__.py", "transactions.py"]


class TestAtExit:
    def test_nothing_is_said_of_what_was_not_lost(self, make_project: MakeProject) -> None:
        """A coroutine that was cancelled is no background signal."""
        project = make_project(
            None,
            url=f"redis://127.0.0.1:{free_port()}/0",
            settings='ASYNC_SIGNALS = {"flush_timeout": 0.2, "publish_timeout": 10}',
        )
        report = project.run(
            """
            import asyncio
            from shopapp.signals import my_signal
            async def main():
                task = asyncio.ensure_future(my_signal.asend(None))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            asyncio.run(main())
            """
        )
        assert "background signals" not in report.output.lower()

    def test_what_was_lost_is_counted(self, make_project: MakeProject) -> None:
        project = make_project(
            None, url=f"redis://127.0.0.1:{free_port()}/0", settings='ASYNC_SIGNALS = {"flush_timeout": 0.2}'
        )
        report = project.run("from shopapp.signals import buffered\nfor _ in range(3): buffered.send(None)")
        assert "3 background signals were not sent" in report.output


class TestImporting:
    """Importing the package reads no settings, and needs neither them nor an app."""

    @pytest.mark.parametrize("module", ["async_signals", "async_signals.signals", "async_signals.testing"])
    def test_no_settings_are_read(self, embedded: Project, module: str) -> None:
        done = embedded.python(
            "-c",
            f"import {module}; from django.conf import settings; from celery import _state; "
            f"assert not settings.configured; assert _state.default_app is None; "
            f"import sys; assert not [name for name in sys.modules if name.startswith('celery.worker')]",
            env={"DJANGO_SETTINGS_MODULE": "there.is.no.such.module"},
        )
        assert done.returncode == 0, done.stderr

    def test_from_settings(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        """A callable `on_failure` is imported by the settings, which are half read by then."""
        project = make_project(
            redis_server,
            settings="""
            from async_signals import SignalNotSent
            def signal_lost(signal, task_id, error):
                assert isinstance(error, SignalNotSent)
            ASYNC_SIGNALS = {"on_failure": signal_lost}
            """,
        )
        project.migrate()
        report = project.run("from shopapp.models import Order; result = Order.objects.count()")
        assert report.result == 0

    def test_the_command_line_helps_where_settings_are_exported(self, embedded: Project) -> None:
        """A console script has no working directory on its path yet when it imports us."""
        done = embedded.python("-m", "async_signals", "--help", env={"PYTHONPATH": "", "DJANGO_SETTINGS_MODULE": "x.y"})
        assert done.returncode == 0, done.stderr

    def test_a_private_name_that_is_gone_is_named(self, embedded: Project) -> None:
        done = embedded.python(
            "-c", "from django.dispatch import Signal; del Signal._live_receivers; import async_signals"
        )
        assert "UnsupportedVersion: django 5" in done.stderr or "UnsupportedVersion: django 6" in done.stderr
        assert "_live_receivers" in done.stderr

    def test_a_python_that_cannot_load_the_native_module_is_told(self, embedded: Project) -> None:
        done = embedded.python("-c", "import sys; sys.modules['async_signals._native'] = None; import async_signals")
        assert "free-threaded builds and sub-interpreters are not supported" in done.stderr
