"""What a worker logs of receivers that fail, and that a project's base task class changes nothing about their tries."""

from __future__ import annotations

import re

import pytest

from conftest import MakeProject
from servers.project import Project
from servers.redis import RedisServer
from servers.worker import Kind

#: A project that has every task tried again, and acknowledges early.
IMPATIENT = """
from celery import Task
from proj.celery import app

class Impatient(Task):
    autoretry_for = (Exception,)
    retry_kwargs = {"max_retries": 3, "countdown": 0}
    acks_late = False
    reject_on_worker_lost = False
    rate_limit = "1000/s"

app.task_cls = Impatient
"""
ANNOTATED = """
CELERY_TASK_ANNOTATIONS = {
    "*": {
        "autoretry_for": (Exception,),
        "retry_kwargs": {"max_retries": 3, "countdown": 0},
        "acks_late": False,
        "reject_on_worker_lost": False,
        "rate_limit": "1000/s",
    }
}
"""
MAILED = """
ADMINS = [("Admin", "admin@example.org")]
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = "mails"
"""


def fail_three_times(project: Project, kind: Kind) -> tuple[str, str]:
    """Has a receiver fail in all of its tries; returns the message's id and the worker's log."""
    with project.worker(kind=kind) as worker:
        sent = project.run("from shopapp.signals import tried; result = tried.send('web', what=[]).id")
        worker.process.wait_for("is dead-lettered to celery.dead")
        project.run_the_last(worker)
        return sent.result, worker.output


@pytest.mark.parametrize("settings", [IMPATIENT, ANNOTATED], ids=["base class", "annotations"])
def test_a_base_task_that_is_tried_again_leaves_signals_alone(
    make_project: MakeProject, redis_server: RedisServer, worker_kind: Kind, settings: str
) -> None:
    project = make_project(redis_server, settings=settings)
    _, log = fail_three_times(project, worker_kind)
    assert len(project.effects.seen("tried_in_vain")) == 3, "as often as its `retry` says"
    assert len(project.effects.seen("before_the_tries")) == 1
    assert len(project.effects.seen("after_the_tries")) == 1
    assert project.queues() == {"celery.dead": 1}
    if worker_kind == "ours":
        assert "Task async_signals.propagate" not in log, "signals still go the short way"


@pytest.mark.parametrize("settings", [IMPATIENT, ANNOTATED], ids=["base class", "annotations"])
def test_only_what_signals_promise_is_not_the_projects_to_change(
    make_project: MakeProject, redis_server: RedisServer, settings: str
) -> None:
    report = make_project(redis_server, settings=settings).run(
        """
        from proj import celery_app
        task = celery_app.tasks["async_signals.propagate"]
        result = [task.acks_late, task.reject_on_worker_lost, list(task.autoretry_for), task.rate_limit]
        """
    )
    assert report.result == [True, True, [], "1000/s"]


def test_a_failed_try_is_one_line_and_no_mail(
    make_project: MakeProject, redis_server: RedisServer, worker_kind: Kind
) -> None:
    project = make_project(redis_server, settings=MAILED)
    sent, log = fail_three_times(project, worker_kind)
    failed = [
        re.sub(r".* (WARNING|ERROR)/[^]]*\] ", r"\1 ", line) for line in log.splitlines() if "] Receiver " in line
    ]
    receiver = f"Receiver shopapp.tries.tried_in_vain of signal shopapp.signals.tried[{sent}]"
    assert failed == [
        f"WARNING {receiver} failed in try 1, and is tried again: ConnectionError('refused in try 1', ['changed'])",
        f"WARNING {receiver} failed in try 2, and is tried again: ConnectionError('refused in try 2', [])",
        f"ERROR {receiver} failed in try 3, the last one: ConnectionError('refused in try 3', [])",
    ]
    errors = [line for line in log.splitlines() if "ERROR/" in line]
    assert len(errors) == 1, "the dead letter is not a second one"
    assert log.count("Traceback (most recent call last)") == 3, "each traceback once"
    assert "send_robust" not in log
    assert not (project.folder / "mails").exists(), "the receiver's own thread mails nobody"
