"""Brokers that die, hang, refuse or are not there: a send ends within its deadline, and never lies."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import MakeProject, need
from servers import rabbitmq, redis
from servers.process import free_port
from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

Mortal = RedisServer | RabbitmqServer
SECRET = "s3cr3t-never-shown"
#: What a send may take beyond its deadline, on a busy machine; less than another deadline.
GRACE = 1.5


@pytest.fixture(params=["redis", "rabbitmq"])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mortal]:
    """A server of this test's own, which it may kill; it keeps on disk what it has confirmed."""
    server: Mortal
    if request.param == "redis":
        need(redis.program(), "redis-server")
        server = RedisServer(tmp_path, ["--appendonly", "yes", "--appendfsync", "always"])
    else:
        need(rabbitmq.program(), "rabbitmq-server")
        server = RabbitmqServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def make_mortal_project(make_project: MakeProject, mortal: Mortal) -> Callable[..., Project]:
    def make(timeout: float, more: str = "") -> Project:
        settings = f'ASYNC_SIGNALS = {{"publish_timeout": {timeout}}}\n{more}'
        return make_project(mortal, settings=settings)

    return make


TIMED = """
    import time
    from async_signals import SignalNotSent
    from shopapp.signals import my_signal, buffered

    def timed(send):
        start = time.monotonic()
        try:
            send()
            error = None
        except SignalNotSent as caught:
            error = str(caught)
        return error, time.monotonic() - start
    """


def test_killed_and_restarted_during_ten_thousand_sends(
    mortal: Mortal, make_mortal_project: Callable[..., Project]
) -> None:
    timeout = 2.0
    project = make_mortal_project(timeout)
    sender = project.start("-m", "hammer", "10000", "8")
    try:
        sender.wait_for("halfway")
        mortal.kill()
        sender.wait_for("first failure")
        mortal.start()
        line = sender.wait_for("outcomes: ", timeout=180)
    finally:
        sender.stop()
    outcomes = json.loads(line.removeprefix("outcomes: "))
    returned = {number for number, (how, _) in enumerate(outcomes) if how == "sent"}
    arrived: dict[int, set[str]] = {}
    for message in project.take("celery"):
        arrived.setdefault(message.decode()[1]["number"], set()).add(message.headers["id"])

    assert len(outcomes) == 10_000
    assert returned <= set(arrived), "what returned is in the queue"
    assert 5_000 < len(returned) < 10_000, "sends fail while the broker is gone, and go on when it is back"
    assert max(seconds for _, seconds in outcomes) < timeout + GRACE
    assert all(len(ids) == 1 for ids in arrived.values()), "what was sent again has the id it had"


def test_frozen_and_thawed(mortal: Mortal, make_mortal_project: Callable[..., Project]) -> None:
    """A broker that stops answering: sends fail in time, on threads and event loops; then all goes on."""
    project = make_mortal_project(2.0)
    sender = project.start(
        "-c",
        """
import asyncio, json, sys, django
django.setup()
"""
        + "\n".join(line[4:] for line in TIMED.splitlines())
        + """
assert timed(lambda: my_signal.send("web", number=0))[0] is None
print("connected", flush=True)
while True:
    found = timed(lambda: my_signal.send("web", number=1))
    if found[0]:
        break
found_async = timed(lambda: asyncio.run(my_signal.asend("web", number=2)))
background = timed(lambda: buffered.send("web", number=3))
print("frozen: " + json.dumps([found, found_async, background]), flush=True)
while timed(lambda: my_signal.send("web", number=4))[0]:
    pass
print("thawed", flush=True)
""",
    )
    try:
        sender.wait_for("connected")
        mortal.process.pause()
        line = sender.wait_for("frozen: ")
        mortal.process.resume()
        sender.wait_for("thawed")
        assert sender.wait(30) == 0, sender.output
    finally:
        mortal.process.resume()
        sender.kill()
    (error, seconds), (async_error, async_seconds), (background_error, background_seconds) = json.loads(
        line.removeprefix("frozen: ")
    )
    assert error
    assert async_error
    assert seconds < 2.0 + GRACE
    assert async_seconds < 2.0 + GRACE
    assert background_error is None
    assert background_seconds < 0.5
    arrived = Counter(project.taken_arguments("number"))
    assert arrived[0] >= 1
    assert arrived[4] >= 1
    assert arrived[3] == 1, "the background signal has waited for the broker"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["redis", "amqp", "rediss", "amqps"])
@pytest.mark.parametrize("kind", ["silent", "unreachable"])
def test_a_broker_that_is_silent_or_not_there(make_project: MakeProject, silent: str, kind: str, scheme: str) -> None:
    address = silent if kind == "silent" else f"127.0.0.1:{free_port()}"
    project = make_project(
        None, url=f"{scheme}://user:{SECRET}@{address}/0", settings='ASYNC_SIGNALS = {"publish_timeout": 2}'
    )
    report = project.attempt(
        TIMED
        + """
    import asyncio
    result = [
        timed(lambda: my_signal.send("web", number=1)),
        timed(lambda: asyncio.run(my_signal.asend("web", number=1))),
        timed(lambda: my_signal.options(priority=3).send("web", number=1)),
        timed(lambda: my_signal.send_robust("web", number=1)),
    ]
    """
    )
    assert report.error is None, report.output
    for error, seconds in report.result:
        assert error
        assert seconds < 2 + GRACE
    assert SECRET not in report.output


def test_a_list_of_brokers_that_are_all_silent(make_project: MakeProject, silent: str) -> None:
    """One deadline for all of them, not one for each."""
    urls = [f"redis://:{SECRET}@{silent}/{number}" for number in range(3)]
    project = make_project(None, url=urls, settings='ASYNC_SIGNALS = {"publish_timeout": 2}')
    report = project.attempt(TIMED + '\n    result = timed(lambda: my_signal.send("web", number=1))')
    error, seconds = report.result
    assert error
    assert seconds < 2 + GRACE
    assert SECRET not in report.output


def test_a_wrong_password(make_project: MakeProject, mortal: Mortal, tmp_path: Path) -> None:
    """Said as such, at once rather than at the deadline, and without the password."""
    servers = []
    if isinstance(mortal, RedisServer):
        folder = tmp_path / "guarded"
        folder.mkdir()
        servers.append(RedisServer(folder, password="right"))
        url = f"redis://:{SECRET}@127.0.0.1:{servers[0].port}/0"
    else:
        url = mortal.url(password=SECRET)
    try:
        project = make_project(None, url=url, settings='ASYNC_SIGNALS = {"publish_timeout": 20}')
        start = time.monotonic()
        report = project.attempt('from shopapp.signals import my_signal; my_signal.send("web", number=1)')
        seconds = time.monotonic() - start
    finally:
        for server in servers:
            server.stop()
    text = report.failed("SignalNotSent")
    assert any(word in text.lower() for word in ("password", "auth", "login", "credential")), text
    assert seconds < 20, "there is nothing to wait for"
    assert SECRET not in report.output


def test_an_exit_with_a_dead_broker_ends_and_says_so(make_project: MakeProject) -> None:
    project = make_project(
        None,
        url=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
        settings='ASYNC_SIGNALS = {"publish_timeout": 1, "flush_timeout": 1}',
    )
    start = time.monotonic()
    report = project.attempt('from shopapp.signals import buffered; buffered.send("web", number=1)')
    seconds = time.monotonic() - start
    assert report.error is None, report.output
    assert "lost" in report.output or "not sent" in report.output
    assert seconds < 15
    assert SECRET not in report.output


def test_a_full_buffer(make_project: MakeProject) -> None:
    """A bounded buffer, a bounded wait, and an error that says what is full."""
    project = make_project(
        None,
        url=f"redis://127.0.0.1:{free_port()}/0",
        settings='ASYNC_SIGNALS = {"buffer_size": 10, "buffer_timeout": 0.2, "flush_timeout": 0}',
    )
    report = project.attempt(
        TIMED
        + """
    import asyncio
    accepted = 0
    while True:
        error, seconds = timed(lambda: buffered.send("web", number=1))
        if error:
            break
        accepted += 1
    result = [accepted, error, seconds, *timed(lambda: asyncio.run(buffered.asend("web", number=1)))]
    """
    )
    assert report.error is None, report.output
    accepted, error, seconds, async_error, async_seconds = report.result
    assert 10 <= accepted <= 20
    assert "buffer" in error
    assert 0.1 < seconds < 0.2 + GRACE
    assert "buffer" in async_error
    assert async_seconds < 0.2 + GRACE
