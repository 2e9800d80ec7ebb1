"""The SQLite broker's file, which two SQLite libraries in one process would destroy."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from conftest import MakeProject
from servers.sqlite import SqliteBroker
from servers.worker import KINDS, Kind

MIXED = """
    from concurrent.futures import ThreadPoolExecutor
    from shopapp import tasks
    from shopapp.signals import my_signal

    tasks.add.delay(0, 0)  # Celery is first at the file

    def send(first):
        for number in range(50):
            my_signal.send(None, number=first + number)
            tasks.third_time_lucky.delay("key")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    """


@pytest.mark.parametrize("kind", KINDS)
def test_signals_and_tasks_of_one_process_share_the_file(
    make_project: MakeProject, sqlite_broker: SqliteBroker, kind: Kind
) -> None:
    """Sent by the same process, and by the worker, whose tasks are tried again."""
    project = make_project(sqlite_broker)
    with project.worker(kind=kind):
        project.run(MIXED)
        project.effects.wait_for(200, "mine")
        project.effects.wait_for(600, "third_time_lucky")
    assert project.url is not None
    with contextlib.closing(sqlite3.connect(project.url.removeprefix("sqla+sqlite:///"))) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
