"""What the core says reaches Python's `logging`, on a thread that no send waits for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeProject, need
from servers import redis
from servers.redis import RedisServer

#: Keeps what is logged in `lines`, and tells nobody until `released` is set.
LISTEN = """
import logging, threading
from async_signals import _native
from shopapp.signals import order_placed

lines, held, released = [], threading.Event(), threading.Event()

class Handler(logging.Handler):
    def emit(self, record):
        held.set()
        assert released.wait(60)
        lines.append((record.name, record.levelname, record.getMessage()))

logger = logging.getLogger("async_signals")
logger.addHandler(Handler())
logger.propagate = False
# Refused by Redis for good, since no list is there: lost, and said to be.
lose = order_placed.options(queue="no list", durability="background").send
"""


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(redis.program(), "redis-server")
    options = ["--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru"]
    server = RedisServer(tmp_path_factory.mktemp("evicting"), options)
    yield server
    server.stop()


def occupied(server: RedisServer) -> str:
    """The URL of a database with something else in the place of a queue."""
    url = server.fresh_url()
    with server.client(url) as client:
        client.set("no list", "but a text")
    return url


def test_warnings_of_the_core_are_records_of_pythons_logging(
    make_project: MakeProject, evicting: RedisServer, tmp_path: Path
) -> None:
    done = make_project(evicting).run(
        LISTEN
        + """
released.set()
order_placed.send(sender=None, order_id=1)
assert _native.drain_events(20)
result = [list(line) for line in lines]
"""
    )
    [[name, level, text]] = done.result
    assert (name, level) == ("async_signals.core", "WARNING")
    assert re.fullmatch(
        r"This Redis may evict queues .* noeviction \(broker redis://127\.0\.0\.1:\d+/\d+, policy allkeys-lru\)", text
    )


def test_a_slow_log_handler_delays_no_send(make_project: MakeProject, redis_server: RedisServer) -> None:
    done = make_project(redis_server, url=occupied(redis_server)).run(
        LISTEN
        + """
lost = lose(sender=None, order_id=1).id
assert held.wait(20)
order_placed.send(sender=None, order_id=2)  # confirmed, while the handler still holds the line about the other one
released.set()
assert _native.drain_events(20)
result = [text for _, _, text in lines if lost in text]
"""
    )
    [line] = done.result
    assert "was not sent" in line
    assert "WRONGTYPE" in line


def test_more_than_can_wait_is_counted(make_project: MakeProject, redis_server: RedisServer) -> None:
    done = make_project(redis_server, url=occupied(redis_server)).run(
        LISTEN
        + """
from async_signals.publishing import flush

for number in range(12_000):
    lose(sender=None, order_id=number)
flush(60)
released.set()
assert _native.drain_events(60)
result = [sum("was not sent" in text for _, _, text in lines), lines[-1][2]]
"""
    )
    reported, last = done.result
    counted = re.fullmatch(r"(\d+) more background signals were not sent, .*", last)
    assert counted, last
    assert reported < 12_000 == reported + int(counted[1])


def test_a_process_that_was_forked_in_c_has_a_thread_of_its_own(
    make_project: MakeProject, redis_server: RedisServer
) -> None:
    done = make_project(redis_server, url=occupied(redis_server)).run(
        LISTEN
        + """
import ctypes, os

released.set()
lose(sender=None, order_id=1)
while not lines:
    _native.drain_events(20)
reader, writer = os.pipe()
if not ctypes.PyDLL(None).fork():  # as uWSGI forks: Python is not told
    lines.clear()
    lose(sender=None, order_id=2)
    while not lines:
        _native.drain_events(20)
    os.write(writer, lines[0][2].encode())
    os._exit(0)
os.close(writer)
with open(reader) as told:
    result = told.read()
""",
        timeout=60,
    )
    assert "was not sent" in done.result


def test_what_is_told_at_the_end_is_logged_before_the_process_ends(
    make_project: MakeProject, redis_server: RedisServer
) -> None:
    done = make_project(redis_server, url=occupied(redis_server)).run(
        """
from shopapp.signals import order_placed

result = order_placed.options(queue="no list", durability="background").send(sender=None, order_id=1).id
"""
    )
    assert re.search(rf"{done.result}.*was not sent", done.output)
