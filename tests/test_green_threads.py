"""Under gevent and eventlet a send waits as any green thread does: the others go on, and no thread is spent on it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Broker, Project

LIBRARIES = {
    "gevent": """
        from gevent import monkey
        monkey.patch_all()
        import gevent
        def spawn(call, *arguments): return gevent.spawn(call, *arguments)
        def join(green): gevent.joinall(green)
        pause = gevent.sleep
        """,
    "eventlet": """
        import eventlet
        eventlet.monkey_patch()
        def spawn(call, *arguments): return eventlet.spawn(call, *arguments)
        def join(green): [each.wait() for each in green]
        pause = eventlet.sleep
        """,
}
SETUP = """
        import json, sys, time, django
        django.setup()
        from shopapp.signals import buffered, my_signal
        def native_threads():
            return len(__import__("os").listdir("/proc/self/task"))
        """


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    code: str = LIBRARIES[request.param]
    return code


def run(project: Project, *code: str) -> Any:
    """Runs it in a process whose threads are green from the start, and returns what it has printed last."""
    done = project.python("-c", "".join(map(dedent, code)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, "noise for an exception that the caller gets"
    return json.loads(done.stdout.splitlines()[-1])


def test_green_threads_share_the_connection(project: Project, library: str) -> None:
    ticks = run(
        project,
        library,
        SETUP,
        """
        ticks = 0
        def tick():
            global ticks
            while True:
                pause(0)
                ticks += 1
        spawn(tick)
        def send(first):
            for n in range(20):
                my_signal.send("green", number=first + n)
        join([spawn(send, first * 20) for first in range(50)])
        print(json.dumps(ticks))
        """,
    )
    assert ticks > 10
    assert sorted(project.taken_arguments("number")) == [*range(1000)]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_each_of_forty_ends_at_its_own_deadline(make_project: MakeProject, silent: str, library: str) -> None:
    project = make_project(
        None, url=f"redis://{silent}/0", settings='ASYNC_SIGNALS = {"publish_timeout": 2, "flush_timeout": 0.1}'
    )
    codes, longest, look_up, threads = run(
        project,
        library,
        SETUP,
        """
        import socket
        codes, took = [], []
        def send():
            start = time.monotonic()
            try:
                my_signal.send(None)
            except Exception as error:
                codes.append(error.code)
            took.append(time.monotonic() - start)
        before = native_threads()
        green = [spawn(send) for _ in range(40)]
        pause(0.2)
        threads = native_threads() - before
        start = time.monotonic()
        socket.getaddrinfo("localhost", 80)
        look_up = time.monotonic() - start
        join(green)
        print(json.dumps([codes, max(took), look_up, threads]))
        """,
    )
    assert codes == ["deadline"] * 40
    assert longest < 5
    assert look_up < 1.5, "names are looked up meanwhile"
    assert threads < 6, "no thread for each that waits"


def test_a_full_buffer_holds_up_nobody_else(make_project: MakeProject, library: str) -> None:
    project = make_project(
        None,
        url=f"redis://127.0.0.1:{free_port()}/0",
        settings='ASYNC_SIGNALS = {"buffer_size": 2, "buffer_timeout": 1.0, "flush_timeout": 0.1}',
    )
    codes, gap = run(
        project,
        library,
        SETUP,
        """
        gap, stop = 0.0, False
        def tick():
            global gap
            last = time.monotonic()
            while not stop:
                pause(0.01)
                gap, last = max(gap, time.monotonic() - last), time.monotonic()
        buffered.send(None)  # the first one imports much
        green = spawn(tick)
        pause(0)
        codes = []
        def send():
            try:
                buffered.send(None)
                codes.append(None)
            except Exception as error:
                codes.append(error.code)
        join([spawn(send) for _ in range(3)])
        stop = True
        join([green])
        print(json.dumps([codes, gap]))
        """,
    )
    assert sorted(codes, key=str) == [None, "buffer_full", "buffer_full"]
    assert gap < 0.9


def test_after_a_commit_and_at_exit(make_project: MakeProject, broker: Broker, library: str) -> None:
    project = make_project(broker)
    project.migrate()
    run(
        project,
        library,
        SETUP,
        """
        from django.db import transaction
        from async_signals import flush
        with transaction.atomic():
            for number in range(50):
                my_signal.send(None, number=number)
        buffered.send(None, number=50)
        flush()
        buffered.send(None, number=51)
        print("true")
        """,
    )
    assert sorted(project.taken_arguments("number")) == [*range(52)]
