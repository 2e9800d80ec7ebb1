"""One program of sends and receivers does the same with Django's signals, eagerly, and through a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from servers.project import Project

SEND = "from shopapp import scenarios; scenarios.send_all(); scenarios.record('end', None)"


def told(project: Project) -> list[tuple[Any, ...]]:
    """What was done, in order, by the numbers of the sends."""
    effects = [effect for effect in project.effects.seen() if effect["receiver"] != "end"]
    return [(effect["arguments"]["number"], effect["receiver"], effect["sender"]) for effect in effects]


@pytest.fixture(scope="module")
def by_django(make_lasting_project: Callable[..., Project]) -> list[tuple[Any, ...]]:
    """What Django's own signals do."""
    project = make_lasting_project(None)
    project.run(SEND, env={"SCENARIOS": "django"})
    project.effects.wait_for(1, "end")
    done = told(project)
    assert len(done) > 150
    return done


def test_eagerly(make_project: Callable[..., Project], by_django: list[tuple[Any, ...]]) -> None:
    project = make_project(None, url="redis://127.0.0.1:1/0")
    project.run(f"import proj; proj.celery_app.conf.task_always_eager = True; {SEND}")
    project.effects.wait_for(1, "end")
    assert told(project) == by_django


def test_through_a_worker(project: Project, by_django: list[tuple[Any, ...]]) -> None:
    project.run(SEND)
    project.effects.clear()
    # The worker's own process imports the receivers with its tasks.
    with project.worker(options=["--concurrency", "1", "--include", "shopapp.scenarios"]):
        project.effects.wait_for(len(by_django))
    # Brokers promise no order between messages.
    assert sorted(told(project), key=lambda done: done[0]) == by_django
