"""`task_send_sent_event`: monitors hear of each signal what they hear of any task, and no send waits for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from conftest import FIXTURES, MakeProject
from servers.events import Event, Events
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

#: What differs from event to event; the names of it all are compared all the same.
OF_ONE_EVENT = {"uuid", "root_id", "clock", "timestamp", "local_received", "pid"}
#: Settings that change where events go.
SETTINGS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "elsewhere": {
        "event_exchange": "shopev",
        "broker_transport_options": {"global_keyprefix": "shop:", "fanout_prefix": "/{db}-events."},
    },
    "without patterns": {"broker_transport_options": {"fanout_prefix": False, "fanout_patterns": False}},
}
#: Celery's own send of the task of a signal, and ours in each of the ways that a message goes.
SEND = """
from celery import current_app
from async_signals import publishing
from shopapp.signals import order_placed

name = order_placed.name
theirs = current_app.tasks["async_signals.propagate"].apply_async(
    (name, None), {}, argsrepr=f"({name!r}, ...)", kwargsrepr="{...}"
)
result = [
    theirs.id,
    order_placed.send(sender=None, order_id=1).id,
    order_placed.options(durability="background").send(sender=None, order_id=2).id,
    order_placed.options(task_id="6a7e9e8f-ef1c-4f1b-b7ae-d14e9a3d5c11").send(sender=None, order_id=3).id,
]
publishing.flush()
"""


def alike(event: Event) -> Event:
    return {name: value for name, value in event.items() if name not in OF_ONE_EVENT}


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
@pytest.mark.parametrize("chosen", SETTINGS)
def test_monitors_hear_what_celery_would_have_sent(
    request: pytest.FixtureRequest, make_project: MakeProject, kind: str, chosen: str
) -> None:
    server: RedisServer | RabbitmqServer = request.getfixturevalue(FIXTURES[kind])
    settings = SETTINGS[chosen]
    if kind == "rabbitmq":
        settings = {name: value for name, value in settings.items() if name != "broker_transport_options"}
    lines = [f"CELERY_{name.upper()} = {value!r}" for name, value in settings.items()]
    project = make_project(server, settings="\n".join([*lines, "CELERY_TASK_SEND_SENT_EVENT = True"]))
    assert project.url
    events = Events(project.url, **settings)
    try:
        before = time.time()
        ids = project.run(SEND).result
        sent = {event["uuid"]: event for event in events.wait_for("task-sent", len(ids))}
    finally:
        events.close()
    assert sorted(sent) == sorted(ids)
    theirs = sent[ids[0]]
    for task_id in ids[1:]:
        ours = sent[task_id]
        assert ours.keys() == theirs.keys()
        assert alike(ours) == alike(theirs)
        assert ours["root_id"] == task_id
        assert before - 1 < ours["timestamp"] < time.time() + 1


def test_an_event_that_the_broker_refuses_costs_no_signal(
    make_project: MakeProject, rabbitmq_server: RabbitmqServer
) -> None:
    project = make_project(
        rabbitmq_server,
        settings="""
            CELERY_TASK_SEND_SENT_EVENT = True
            CELERY_EVENT_EXCHANGE = "amq.no such exchange"  # which may not even be declared
        """,
    )
    project.run(
        """
from shopapp.signals import order_placed

for number in range(50):
    order_placed.send(sender=None, order_id=number)
"""
    )
    assert rabbitmq_server.queues(project.url) == {"celery": 50}
