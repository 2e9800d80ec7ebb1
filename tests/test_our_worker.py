"""`async-signals worker`, as its users run it."""

from __future__ import annotations

import pytest

from servers.project import Project


@pytest.fixture
def project(make_project, request):
    return make_project(request.getfixturevalue("sqlite_broker"))


def test_a_signal_reaches_its_receivers(project: Project) -> None:
    with project.our_worker() as worker:
        project.run("from shopapp.signals import order_placed; order_placed.send('web', order_id=7)")
        (effect,) = project.effects.wait_for(1, "ordered")
        assert effect["arguments"] == {"order_id": 7}
        print(worker.output)
    print(worker.output)
    assert project.queues() == {}
