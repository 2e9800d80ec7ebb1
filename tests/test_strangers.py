"""Celery's settings as well-known projects have them: checked, sent with, and run by both workers."""

from __future__ import annotations

import celery
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


#: Celery's settings in the manner of more projects, each on a broker that nobody has started; and what is said of them.
CHECKED: dict[str, tuple[str, str, list[str]]] = {
    # PostHog: names that Celery had before its fourth version, and which it reads all the same.
    "analytics": (
        "redis://localhost:1/0",
        """
        from datetime import timedelta
        from kombu import Exchange, Queue
        CELERY_QUEUES = tuple(Queue(name, Exchange(name), name) for name in ("celery", "high_priority", "unread"))
        CELERY_DEFAULT_QUEUE = "celery"
        CELERY_IMPORTS = []
        CELERY_IGNORE_RESULT = True
        CELERY_RESULT_BACKEND = CELERY_BROKER_URL
        CELERY_RESULT_EXPIRES = timedelta(days=4)
        CELERY_BEAT_MAX_LOOP_INTERVAL = 30
        """,
        [],
    ),
    # pretix: queues of one exchange, and routes as a list of pairs within a tuple.
    "tickets": (
        "redis://localhost:1/0",
        """
        from kombu import Queue
        CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
        CELERY_TASK_DEFAULT_QUEUE = "default"
        CELERY_TASK_QUEUES = tuple(
            Queue(name, routing_key=f"{name}.#")
            for name in ("default", "checkout", "mail", "background", "high_priority", "unread")
        )
        CELERY_TASK_ROUTES = ([
            ("pretix.base.services.cart.*", {"queue": "checkout"}),
            ("pretix.base.services.mail.*", {"queue": "mail"}),
        ],)
        """,
        [],
    ),
    # Weblate: TLS that is not verified, said in the URL.
    "translations": (
        "rediss://localhost:1/1?ssl_cert_reqs=CERT_NONE",
        """
        CELERY_TASK_ALWAYS_EAGER = False
        CELERY_RESULT_BACKEND = CELERY_BROKER_URL
        CELERY_WORKER_PREFETCH_MULTIPLIER = 0
        CELERY_WORKER_MAX_MEMORY_PER_CHILD = 200000
        CELERY_TASK_ROUTES = {
            "weblate.trans.search.*": {"queue": "search"},
            "weblate.accounts.tasks.notify_*": {"queue": "notify"},
            "weblate.memory.tasks.*": {"queue": "memory"},
        }
        SILENCED_SYSTEM_CHECKS = ["admin.E408"]
        """,
        [],
    ),
    # paperless-ngx: tasks as pickles, JSON by its media type, a prefix before each key.
    "documents": (
        "redis://localhost:1/0",
        """
        CELERY_WORKER_HIJACK_ROOT_LOGGER = False
        CELERY_WORKER_MAX_TASKS_PER_CHILD = CELERY_WORKER_CONCURRENCY = 1
        CELERY_WORKER_SEND_TASK_EVENTS = CELERY_TASK_SEND_SENT_EVENT = CELERY_SEND_TASK_SENT_EVENT = True
        CELERY_BROKER_CONNECTION_RETRY = CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
        CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": ""}
        CELERY_TASK_TRACK_STARTED = CELERY_RESULT_EXTENDED = True
        CELERY_TASK_TIME_LIMIT = 1800
        CELERY_CACHE_BACKEND = "default"
        CELERY_TASK_SERIALIZER = "pickle"
        CELERY_ACCEPT_CONTENT = ["application/json", "application/x-python-serialize"]
        """,
        [],
    ),
    # kitsune: nothing but such names; eager while it is developed.
    "questions": (
        "redis://localhost:1/0",
        """
        from proj.celery import app
        app.config_from_object("django.conf:settings", force=True)
        BROKER_URL = CELERY_BROKER_URL
        del CELERY_BROKER_URL
        CELERY_IGNORE_RESULT = True
        CELERY_ALWAYS_EAGER = CELERY_EAGER_PROPAGATES_EXCEPTIONS = True
        CELERYD_CONCURRENCY = 4
        CELERYD_HIJACK_ROOT_LOGGER = False
        DATABASES = {name: {**each, "ATOMIC_REQUESTS": True} for name, each in shared.DATABASES.items()}
        """,
        [],
    ),
    # EDD: a serializer of its own, and a queue for each task, without an exchange.
    "experiments": (
        "amqp://localhost:1//",
        """
        from kombu import Queue
        from kombu.serialization import register
        register("edd-json", str, str, "application/x-edd-json")
        CELERY_BROKER_CONNECTION_RETRY = CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
        CELERY_ACCEPT_CONTENT = {"json", "edd-json"}
        CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "edd-json"
        CELERY_TASK_PUBLISH_RETRY = False
        CELERY_TASK_DEFAULT_EXCHANGE = CELERY_TASK_DEFAULT_QUEUE = CELERY_TASK_DEFAULT_ROUTING_KEY = "edd"
        CELERY_TASK_QUEUES = tuple(map(Queue, ("edd", "export.export_table_task", "high_priority", "unread")))
        CELERY_TASK_ROUTES = {"edd.export.tasks.export_table_task": "export.export_table_task"}
        CELERY_BROKER_POOL_LIMIT = None
        """,
        [],
    ),
    # Taiga: a topic exchange; and its workers would throw away each signal, as they take nothing but pickles.
    "sprints": (
        "amqp://localhost:1//",
        """
        from kombu import Queue
        from proj.celery import app
        app.config_from_object("django.conf:settings", force=True)
        BROKER_URL = CELERY_BROKER_URL
        del CELERY_BROKER_URL
        CELERY_ACCEPT_CONTENT = ["pickle"]
        CELERY_ENABLE_UTC = True
        CELERY_DEFAULT_QUEUE = CELERY_DEFAULT_EXCHANGE = "tasks"
        CELERY_QUEUES = (
            Queue("tasks", routing_key="task.#"),
            Queue("transient", routing_key="transient.#", delivery_mode=1),
            Queue("high_priority"),
            Queue("unread"),
        )
        CELERY_DEFAULT_EXCHANGE_TYPE = "topic"
        CELERY_DEFAULT_ROUTING_KEY = "task.default"
        """,
        ["E005"],
    ),
}


@pytest.mark.parametrize("stranger", CHECKED)
def test_what_is_said_of_a_project_of_somebody_else(make_project: MakeProject, stranger: str) -> None:
    if stranger == "sprints" and celery.VERSION < (5, 5):
        pytest.skip("Celery 5.4 keeps the namespace that the test project has given its app")
    url, settings, said = CHECKED[stranger]
    project = make_project(None, url=url, settings=settings)
    report = project.run("from django.core.checks import run_checks; result = [each.id for each in run_checks()]")
    assert report.result == [f"async_signals.{name}" for name in said]


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
