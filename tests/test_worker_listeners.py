"""When signals take the long way, through Celery's tracer: when somebody watches it, and not otherwise."""

from __future__ import annotations

import pytest

from conftest import MakeProject
from servers.project import Project
from servers.sqlite import SqliteBroker

#: `present` is asked as a worker asks it; `lifecycle` has connected what Celery connects by itself.
PREPARED = """
    from celery import signals
    from proj.celery import app
    from async_signals.routing import TASK
    from async_signals.worker.lifecycle import Lifecycle
    from async_signals.worker.listeners import Listeners

    lifecycle = Lifecycle(app, "shop@here", {})
    lifecycle.begin()
    lifecycle.enter_process()
    task = app.tasks[TASK]
    listeners = Listeners(app, TASK)

    def listen(**named):
        pass

    before = listeners.present
"""


@pytest.fixture
def project(make_project: MakeProject, sqlite_broker: SqliteBroker) -> Project:
    return make_project(sqlite_broker)


def test_nobody_listens_but_celery_itself(project: Project) -> None:
    told = project.run(PREPARED + "\n    result = [before, len(signals.task_prerun.receivers)]").result
    assert told == [False, 1], "Celery's Django fixup is connected, and does not count"


@pytest.mark.parametrize(
    "signal", ["task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"]
)
def test_a_listener_comes_and_goes(project: Project, signal: str) -> None:
    told = project.run(
        PREPARED
        + f"""
    signals.{signal}.connect(listen)
    during = listeners.present
    signals.{signal}.disconnect(listen)
    result = [before, during, listeners.present]
    """
    ).result
    assert told == [False, True, False]


def test_a_listener_for_another_task_does_not_count(project: Project) -> None:
    told = project.run(
        PREPARED
        + """
    signals.task_success.connect(listen, sender=app.tasks["shopapp.tasks.add"])
    other = listeners.present
    signals.task_success.connect(listen, sender=task)
    result = [other, listeners.present]
    """
    ).result
    assert told == [False, True]


@pytest.mark.parametrize(
    "patch",
    [
        "trace.build_tracer = functools.wraps(trace.build_tracer)(lambda *a, **k: original(*a, **k))",
        "type(task).__call__ = functools.wraps(type(task).__call__)(lambda self, *a, **k: None); fresh()",
        "task.run = functools.wraps(task.run)(lambda *a, **k: None); fresh()",
        "type(task).on_success = listen; fresh()",
    ],
    ids=["tracer", "call", "run", "hook"],
)
def test_a_patch_counts(project: Project, patch: str) -> None:
    told = project.run(
        PREPARED
        + f"""
    import functools
    from celery.app import trace

    original = trace.build_tracer

    def fresh():
        global listeners
        listeners = Listeners(app, TASK)

    {patch}
    result = [before, listeners.present]
    """
    ).result
    assert told == [False, True]


def test_sentry_counts(project: Project) -> None:
    told = project.run(
        PREPARED
        + """
    import sentry_sdk
    from sentry_sdk.integrations.celery import CeleryIntegration

    sentry_sdk.init(integrations=[CeleryIntegration()])
    result = [before, listeners.present]
    """
    ).result
    assert told == [False, True]
