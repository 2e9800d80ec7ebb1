"""Celery's settings as well-known projects have them: checked, sent with, and run by both workers."""

from __future__ import annotations

import pytest

from conftest import MakeProject
from servers.project import Broker
from servers.redis import RedisServer
from servers.worker import KINDS, Kind

#: In the manner of cookiecutter-django, edx-platform and authentik.
PROJECTS = {
    "a template of projects": (
        """
        CELERY_TIMEZONE = TIME_ZONE = "Europe/Berlin"
        CELERY_RESULT_EXTENDED = True
        CELERY_RESULT_BACKEND_ALWAYS_RETRY = True
        CELERY_RESULT_BACKEND_MAX_RETRIES = 10
        CELERY_ACCEPT_CONTENT = ["json"]
        CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
        CELERY_TASK_TIME_LIMIT = 5 * 60
        CELERY_TASK_SOFT_TIME_LIMIT = 60
        CELERY_WORKER_SEND_TASK_EVENTS = True
        CELERY_TASK_SEND_SENT_EVENT = True
        CELERY_WORKER_HIJACK_ROOT_LOGGER = False
        """,
        "celery",
    ),
    "a platform of courses": (
        """
        CELERY_BROKER_HEARTBEAT = 60.0
        CELERY_BROKER_HEARTBEAT_CHECKRATE = 2
        CELERY_BROKER_USE_SSL = False
        CELERY_WORKER_PREFETCH_MULTIPLIER = 1
        CELERY_WORKER_HIJACK_ROOT_LOGGER = False
        CELERY_TASK_DEFAULT_EXCHANGE = "edx.lms.core"
        CELERY_TASK_DEFAULT_QUEUE = CELERY_TASK_DEFAULT_ROUTING_KEY = "edx.lms.core.default"
        CELERY_TASK_QUEUES = {f"edx.lms.core.{name}": {} for name in ("high", "default", "high_mem")}
        CELERY_TASK_QUEUES |= {"high_priority": {}, "unread": {}}  # those of the signals that the test project has
        CELERY_TASK_ROUTES = "proj.routes.nothing"
        CELERY_RESULT_BACKEND = "cache+memory://"
        """,
        "edx.lms.core.default",
    ),
    "a provider of identities": (
        """
        CELERY_TASK_CREATE_MISSING_QUEUES = True
        CELERY_TASK_DEFAULT_QUEUE = "authentik"
        CELERY_TASK_SOFT_TIME_LIMIT = 600
        CELERY_WORKER_MAX_TASKS_PER_CHILD = 50
        CELERY_WORKER_CONCURRENCY = 2
        CELERY_BEAT_SCHEDULE = {}
        CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
        CELERY_TASK_ACKS_LATE = True
        """,
        "authentik",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stranger", PROJECTS)
def test_a_project_of_somebody_else(make_project: MakeProject, broker: Broker, stranger: str, kind: Kind) -> None:
    settings, queue = PROJECTS[stranger]
    project = make_project(broker, settings=settings)
    project.migrate()
    assert "async_signals." not in project.manage("check"), "nothing is wrong with it"
    with project.worker((queue,), kind=kind):
        project.run(
            """
            from django.db import transaction
            from shopapp.models import Order
            from shopapp.signals import my_signal
            with transaction.atomic():
                my_signal.send(Order, order=Order.objects.create(), number=1)
            my_signal.options(durability="background").send("web", number=2)
            """
        )
        project.effects.wait_for(2, "mine")


#: In the manner of packages that give each tenant a schema: whose a task is stands in a header that the app adds.
TENANTS = """
import threading
import celery.app.base
from celery.signals import task_prerun

current = threading.local()

class Tenants(celery.app.base.Celery):
    def send_task(self, *args, **options):
        options["headers"] = {**(options.get("headers") or {}), "tenant": current.tenant}
        return super().send_task(*args, **options)

@task_prerun.connect
def switch(task, **kwargs):
    from shopapp.effects import record
    record("switched", None, tenant=(task.request.headers or vars(task.request))["tenant"])

from proj.celery import app
app.__class__ = Tenants
"""


@pytest.mark.parametrize("kind", KINDS)
def test_each_send_is_its_tenants(make_project: MakeProject, redis_server: RedisServer, kind: Kind) -> None:
    project = make_project(redis_server, settings=TENANTS)
    project.migrate()
    project.run(
        """
        from django.db import transaction
        from proj.settings import current
        from shopapp.signals import my_signal
        for current.tenant in ("first", "second", "first"):
            my_signal.send(None, of=current.tenant)
            my_signal.options(durability="background").send(None, of=current.tenant)
            with transaction.atomic():
                my_signal.send(None, of=current.tenant)
        """
    )
    with project.worker(kind=kind, options=["--concurrency", "1"]):
        project.effects.wait_for(9, "mine")
    seen = [effect["arguments"] for effect in project.effects.seen()]
    switched, received = seen[::2], seen[1::2]
    assert [arguments["tenant"] for arguments in switched] == [arguments["of"] for arguments in received]
    assert sorted(arguments["of"] for arguments in received) == ["first"] * 6 + ["second"] * 3
