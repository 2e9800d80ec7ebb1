"""Django's connections to PostgreSQL in both workers: how many, for how long, and what a receiver may do to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any

import celery
import pytest

from conftest import MakeProject
from servers.eventually import eventually
from servers.postgresql import PostgresqlServer
from servers.project import Project
from servers.redis import RedisServer
from servers.worker import KINDS, Kind, Worker

#: How a project keeps connections: not at all, for ever, in Django's pool.
KEPT = {"not at all": {"CONN_MAX_AGE": 0}, "for ever": {"CONN_MAX_AGE": None}, "in a pool": {"OPTIONS": {"pool": True}}}

LEDGER = """
import os
import threading
from django.db import DatabaseError, connection, transaction
from django.dispatch import receiver
from async_signals import AsyncSignal
from shopapp.effects import record
from shopapp.models import Order

asked, harmed = AsyncSignal(), AsyncSignal()


def backend():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


@receiver(asked)
def ask(sender, waits=False, **kwargs):
    Order.objects.create(reference=sender)
    if waits:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)")
    record("ask", sender, backend=backend(), thread=threading.get_ident())


@receiver(harmed)
def harm(sender, **kwargs):
    record("harm", sender, backend=backend())
    HARMS[sender]()


def leave_a_block_open():
    transaction.atomic().__enter__()
    Order.objects.create(reference="never committed")


def turn_autocommit_off():
    transaction.set_autocommit(False)
    Order.objects.create(reference="never committed")


def fail_in_a_block():
    with transaction.atomic():
        Order.objects.create(reference="never committed")
        try:
            connection.cursor().execute("SELECT nothing FROM nowhere")
        except DatabaseError:
            Order.objects.count()


def lose_the_connection():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def close_the_connection():
    connection.connection.close()


def ask_in_a_thread_of_its_own():
    thread = threading.Thread(target=Order.objects.count)
    thread.start()
    thread.join()


HARMS = {
    harm.__name__: harm
    for harm in (
        leave_a_block_open,
        turn_autocommit_off,
        fail_in_a_block,
        lose_the_connection,
        close_the_connection,
        ask_in_a_thread_of_its_own,
    )
}
"""
HARMS = [
    "leave_a_block_open",
    "turn_autocommit_off",
    "fail_in_a_block",
    "lose_the_connection",
    "close_the_connection",
    "ask_in_a_thread_of_its_own",
]


class Ledger:
    """A project whose receivers ask a PostgreSQL database of its own."""

    def __init__(self, project: Project, server: PostgresqlServer, database: str) -> None:
        self.project, self.server, self.database = project, server, database
        app = project.folder / "ledger"
        app.mkdir()
        (app / "__init__.py").write_text("")
        (app / "models.py").write_text(dedent(LEDGER))
        project.manage("migrate", "--run-syncdb", "--verbosity", "0")

    def send(self, signal: str, sender: str, times: int = 1, **named: Any) -> None:
        self.project.run(
            f"from ledger.models import {signal}\nfor _ in range({times}): {signal}.send({sender!r}, **{named!r})"
        )

    def connections(self, which: str = "true") -> int:
        """How many connections of the worker's are open."""
        [count] = self.server.ask(
            "postgres", f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{self.database}' AND ({which})"
        )
        return int(count)

    def wait_for_connections(self, count: int) -> None:
        eventually(lambda: self.connections() == count, lambda: f"{count} connections, of {self.connections()}")

    @contextlib.contextmanager
    def held_up(self) -> Iterator[Callable[[int], None]]:
        """Receivers wait in the database while the block runs; what it gets waits until so many do."""
        with self.server.connect(self.database) as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            yield lambda count: eventually(
                lambda: self.connections("wait_event_type = 'Lock'") == count,
                lambda: f"{count} receivers, of {self.connections('wait_event_type = $$Lock$$')}",
            )

    def end_connections(self) -> None:
        """As a restart of the server does, or a firewall that has seen nothing for long."""
        self.server.ask(
            "postgres",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'",
        )


@pytest.fixture
def make_ledger(make_project: MakeProject, redis_server: RedisServer, postgresql: PostgresqlServer) -> Any:
    def make(settings: str = "", **database: Any) -> Ledger:
        name = postgresql.fresh_database()
        lines = [postgresql.settings(name, **database), "INSTALLED_APPS = [*INSTALLED_APPS, 'ledger']", settings]
        return Ledger(make_project(redis_server, settings="\n".join(lines)), postgresql, name)

    return make


def started(ledger: Ledger, kind: Kind, *options: str) -> contextlib.AbstractContextManager[Worker]:
    return ledger.project.worker(kind=kind, options=options)


#: Celery 5.4 keeps connections between tasks for as long as CONN_MAX_AGE says, and does not look whether they are open.
CLOSES_ALL = celery.VERSION >= (5, 5)
#: By worker and by how connections are kept: how many are open while receivers run in all threads, of which two
#: processes of ours have four each and two of Celery's one each, and afterwards.
OPEN: dict[tuple[Kind, str], tuple[int, int]] = {
    ("ours", "not at all"): (8, 0),
    ("ours", "for ever"): (8, 8),
    ("ours", "in a pool"): (8, 8),
    ("stock", "not at all"): (2, 0),
    ("stock", "for ever"): (2, 0 if CLOSES_ALL else 2),
    ("stock", "in a pool"): (8, 0 if CLOSES_ALL else 8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", KEPT)
def test_how_many_are_open(make_ledger: Any, kept: str, kind: Kind) -> None:
    ledger = make_ledger(**KEPT[kept])
    busy, idle = OPEN[kind, kept]
    threads = ["--threads", "4"] if kind == "ours" else []
    with started(ledger, kind, "-c", "2", *threads):
        with ledger.held_up() as wait:
            ledger.send("asked", "many", times=40, waits=True)
            wait(8 if kind == "ours" else 2)
            assert ledger.connections() == busy + 1, "and the one that holds them up"
        ledger.project.effects.wait_for(40, "ask")
        ledger.wait_for_connections(idle)
        if idle == 0 or kind == "ours":
            # All of them lost at once: whoever comes next does not meet them.
            ledger.end_connections()
        ledger.send("asked", "next", times=40)
        ledger.project.effects.wait_for(80, "ask")
    ledger.wait_for_connections(0)
    assert ledger.server.ask(ledger.database, "SELECT count(*) FROM shopapp_order") == [80]


@pytest.mark.parametrize("kept", KEPT)
def test_nothing_is_left_of_processes_that_are_replaced(make_ledger: Any, kept: str) -> None:
    # Whoever listens to the worker's start asks the database in the parent, which its processes are forked from.
    ledger = make_ledger(
        """
        from celery.signals import worker_ready
        @worker_ready.connect
        def look(**kwargs):
            from django.db import connection
            connection.cursor().execute("SELECT 1")
        """.replace("\n        ", "\n"),
        **KEPT[kept],
    )
    with started(ledger, "ours", "--max-tasks-per-child", "2"):
        for number in range(2, 8, 2):
            ledger.send("asked", "many", times=2)
            asked = ledger.project.effects.wait_for(number, "ask")
        assert len({effect["pid"] for effect in asked}) == 3
        ledger.wait_for_connections({"not at all": 1, "for ever": 1, "in a pool": 4}[kept])
        parents = ledger.server.ask("postgres", f"SELECT pid FROM pg_stat_activity WHERE datname = '{ledger.database}'")
        assert not {effect["arguments"]["backend"] for effect in asked} & set(parents)
    ledger.wait_for_connections(0)


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_receiver_leaves_behind_harms_no_other(make_ledger: Any, kept: str, kind: Kind) -> None:
    ledger = make_ledger(**KEPT[kept])
    kept_by_celery = kind == "stock" and kept != "not at all" and not CLOSES_ALL
    harms = [harm for harm in HARMS if harm != "close_the_connection" or not kept_by_celery]
    with started(ledger, kind):
        for number, harm in enumerate(harms, 1):
            ledger.send("harmed", harm)
            ledger.send("asked", harm)
            ledger.project.effects.wait_for(number, "harm")
            ledger.project.effects.wait_for(number, "ask", timeout=20)
    assert ledger.server.ask(ledger.database, "SELECT reference FROM shopapp_order ORDER BY id") == harms


@pytest.mark.parametrize("kept", KEPT)
def test_threads_of_a_receivers_own_keep_no_connection(make_ledger: Any, kept: str) -> None:
    ledger = make_ledger(**KEPT[kept])
    with started(ledger, "ours"):
        ledger.send("harmed", "ask_in_a_thread_of_its_own", times=6)  # a pool has four
        ledger.send("asked", "after them")
        ledger.project.effects.wait_for(1, "ask", timeout=20)
        ledger.wait_for_connections({"not at all": 0, "for ever": 1, "in a pool": 4}[kept])
