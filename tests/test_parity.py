"""A signal is published exactly as Celery's own `apply_async` publishes a task.

Each test has two fresh, equally configured places on a broker. The signal is sent in one, and in the other Celery's own
`apply_async` sends the task with the same arguments. Then everything that is on the two brokers is compared: messages,
queues, exchanges, bindings. What Celery could not know is given to it: how the arguments are shown in logs, and the one
header of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any

import pytest

from conftest import FIXTURES, MakeProject
from servers import snapshot
from servers.process import free_port
from servers.project import Broker, Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

SEND = """
    from datetime import datetime, timedelta, timezone
    from shopapp.signals import order_placed
    order_placed.options({options}).send("web", order_id=5)
    """
APPLY_ASYNC = """
    from datetime import datetime, timedelta, timezone
    import proj
    import shopapp.signals
    proj.celery_app.tasks["async_signals.propagate"].apply_async(
        ("shopapp.signals.order_placed", "web"), dict(order_id=5), headers=dict(async_signals={ours}),
        argsrepr={argsrepr!r}, kwargsrepr={kwargsrepr!r}, {options}
    )
    """


def everything(broker: Broker, url: str) -> dict[str, Any]:
    if isinstance(broker, RedisServer):
        return snapshot.redis(broker, url)
    if isinstance(broker, RabbitmqServer):
        return snapshot.rabbitmq(broker, url)
    return snapshot.sqlite(url)


def headers_in(found: Any) -> Iterator[dict[str, Any]]:
    """The headers of every message in a snapshot."""
    if isinstance(found, dict):
        if "argsrepr" in found:
            yield found
        for value in found.values():
            yield from headers_in(value)
    elif isinstance(found, list):
        for value in found:
            yield from headers_in(value)


def compare(
    make_project: MakeProject,
    broker: Broker,
    settings: str = "",
    *,
    options: str = "",
    messages: int = 1,
    url: Callable[[str], Any] = lambda place: place,
    before: str = "",
) -> dict[str, Any]:
    """Sends both ways and returns what the signal left on the broker, which is what Celery left on it."""
    found = []
    ours: dict[str, Any] = {"async_signals": {}, "argsrepr": "", "kwargsrepr": ""}
    for code in (SEND, APPLY_ASYNC):
        place = broker.fresh_url()
        project = make_project(broker, url=url(place), settings=settings)
        words = {"options": options, "ours": ours["async_signals"]}
        project.run(
            dedent(before) + dedent(code).format(argsrepr=ours["argsrepr"], kwargsrepr=ours["kwargsrepr"], **words)
        )
        found.append(everything(broker, place))
        ours = next(headers_in(found[0]))
    by_signal, by_celery = found
    assert by_signal == by_celery
    assert len(list(headers_in(by_signal))) == messages
    return dict(by_signal)


ROUTING = {
    "defaults": "",
    "default queue": 'CELERY_TASK_DEFAULT_QUEUE = "shop"',
    "default queue, exchange and routing key": """
        CELERY_TASK_DEFAULT_QUEUE = "shop"
        CELERY_TASK_DEFAULT_EXCHANGE = "shop-exchange"
        CELERY_TASK_DEFAULT_ROUTING_KEY = "shop.tasks"
        """,
    "default exchange of type topic": """
        CELERY_TASK_DEFAULT_EXCHANGE = "shop-topics"
        CELERY_TASK_DEFAULT_EXCHANGE_TYPE = "topic"
        CELERY_TASK_DEFAULT_ROUTING_KEY = "shop.orders"
        """,
    "transient messages": 'CELERY_TASK_DEFAULT_DELIVERY_MODE = "transient"',
    "routes, a map": 'CELERY_TASK_ROUTES = {"async_signals.propagate": {"queue": "routed"}}',
    "routes, a pattern with more options": """
        CELERY_TASK_ROUTES = {"async_signals.*": {"queue": "routed", "priority": 4, "delivery_mode": 1}}
        """,
    "routes, a list of pairs": 'CELERY_TASK_ROUTES = ([("other.*", "no"), ("async_signals.*", {"queue": "yes"})],)',
    "routes, a callable": """
        def route(name, args, kwargs, options, task=None, **more):
            if name == "async_signals.propagate":
                return {"queue": "of-" + args[0].rpartition(".")[2] + "-" + args[1], "priority": kwargs["order_id"]}
        CELERY_TASK_ROUTES = (route,)
        """,
    "routes, a callable by name": """
        CELERY_TASK_ROUTES = ("proj.routes.by_signal",)
        """,
    "queues, a direct exchange of their own": """
        from kombu import Exchange, Queue
        CELERY_TASK_QUEUES = [
            Queue("celery", Exchange("shop", type="direct"), routing_key="shop.default"),
            Queue("other", Exchange("shop", type="direct"), routing_key="shop.other"),
        ]
        """,
    "queues, a topic exchange of their own": """
        from kombu import Exchange, Queue
        CELERY_TASK_QUEUES = [Queue("celery", Exchange("events", type="topic"), routing_key="shop.#")]
        """,
    "route to a topic": """
        from kombu import Exchange, Queue
        events = Exchange("events", type="topic")
        CELERY_TASK_QUEUES = [Queue("celery"), Queue("orders", events, routing_key="shop.*")]
        CELERY_TASK_ROUTES = {"async_signals.*": {"queue": "orders", "routing_key": "shop.placed"}}
        """,
    "queue arguments": """
        from kombu import Queue
        CELERY_TASK_QUEUES = [
            Queue("celery", max_length=1000, message_ttl=3600.0, queue_arguments={"x-overflow": "reject-publish"}),
        ]
        """,
    "task_queue_max_priority": """
        CELERY_TASK_QUEUE_MAX_PRIORITY = 10
        CELERY_TASK_DEFAULT_PRIORITY = 5
        """,
    "a default priority": "CELERY_TASK_DEFAULT_PRIORITY = 7",
    "compression": 'CELERY_TASK_COMPRESSION = "zlib"',
    "missing queues are not made, and this one is not missing": """
        from kombu import Queue
        CELERY_TASK_QUEUES = [Queue("celery")]
        CELERY_TASK_CREATE_MISSING_QUEUES = False
        """,
    "a time zone of its own": 'CELERY_TIMEZONE = "Asia/Kathmandu"',
}


@pytest.mark.parametrize("settings", ROUTING.values(), ids=ROUTING.keys())
def test_routing(make_project: MakeProject, broker: Broker, settings: str) -> None:
    compare(make_project, broker, settings)


OPTIONS = {
    "priority": "priority=9",
    "the lowest priority": "priority=0",
    "queue": 'queue="elsewhere"',
    "countdown": "countdown=3600",
    "eta": "eta=datetime(2099, 1, 2, 3, 4, 5, tzinfo=timezone.utc)",
    "expires": "expires=3600",
    "expires at": "expires=datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)",
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_options_of_one_send(make_project: MakeProject, broker: Broker, options: str) -> None:
    compare(make_project, broker, options=options)


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> Broker:
    """The brokers that kombu can fail over between; its SQLite transport must come first."""
    found: Broker = request.getfixturevalue(FIXTURES[request.param])
    return found


def dead(place: str) -> str:
    """The URL of a server of the same kind where none is."""
    return f"{place.partition('://')[0]}://127.0.0.1:{free_port()}/0"


def test_a_list_of_urls_whose_first_is_dead(make_project: MakeProject, server: Broker) -> None:
    compare(make_project, server, url=lambda place: [dead(place), place])


def test_urls_in_one_string_whose_first_is_dead(make_project: MakeProject, server: Broker) -> None:
    compare(make_project, server, url=lambda place: f"{dead(place)};{place}")


def test_a_url_for_writing_only(make_project: MakeProject, broker: Broker) -> None:
    compare(
        make_project,
        broker,
        'CELERY_BROKER_WRITE_URL, CELERY_BROKER_URL = CELERY_BROKER_URL, "redis://127.0.0.1:1/0"',
    )


@pytest.mark.parametrize(
    "settings",
    [
        'CELERY_TASK_DEFAULT_QUEUE_TYPE = "quorum"',
        """
        CELERY_TASK_DEFAULT_QUEUE_TYPE = "quorum"
        CELERY_TASK_DEFAULT_EXCHANGE_TYPE = "topic"
        """,
        """
        from kombu import Queue
        CELERY_TASK_QUEUES = [Queue("celery", queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": 5})]
        """,
        'CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True}',
        "CELERY_TASK_SEND_SENT_EVENT = True",
    ],
    ids=["quorum", "quorum with a topic exchange", "quorum queue arguments", "confirms", "sent events"],
)
def test_on_rabbitmq_only(make_project: MakeProject, rabbitmq_server: RabbitmqServer, settings: str) -> None:
    compare(make_project, rabbitmq_server, settings)


@pytest.mark.parametrize(
    "options",
    [
        '{"global_keyprefix": "shop:"}',
        '{"sep": ":", "priority_steps": [0, 5]}',
        '{"queue_order_strategy": "priority", "visibility_timeout": 60}',
    ],
    ids=["key prefix", "priority steps", "strategy"],
)
def test_transport_options_of_redis(make_project: MakeProject, redis_server: RedisServer, options: str) -> None:
    compare(make_project, redis_server, f"CELERY_BROKER_TRANSPORT_OPTIONS = {options}", options="priority=6")


def test_receivers_of_before_task_publish_change_headers_and_body(make_project: MakeProject, broker: Broker) -> None:
    found = compare(
        make_project,
        broker,
        before="""
            from celery.signals import before_task_publish

            @before_task_publish.connect
            def tenant(sender, body, headers, properties, routing_key, **more):
                headers["tenant"] = "acme"
                body[1]["added"] = routing_key
            """,
    )
    [headers] = headers_in(found)
    assert headers["tenant"] == "acme"
    assert "'added': 'celery'" in str(found)


def test_the_headers_of_sentry(make_project: MakeProject, broker: Broker) -> None:
    settings = """
        import sentry_sdk
        from sentry_sdk.integrations.celery import CeleryIntegration
        from sentry_sdk.transport import Transport

        class Nowhere(Transport):
            def capture_envelope(self, envelope):
                pass

        sentry_sdk.init(
            dsn="https://key@localhost/1",
            transport=Nowhere,
            traces_sample_rate=1.0,
            integrations=[CeleryIntegration()],
        )
        """
    code = """
        import sentry_sdk
        from shopapp.signals import order_placed
        with sentry_sdk.start_transaction(name="checkout") as transaction:
            order_placed.send("web", order_id=5)
        result = transaction.trace_id
        """
    project = make_project(broker, settings=settings)
    report = project.run(code)
    [message] = project.take("celery")
    assert message.headers["sentry-trace"].startswith(report.result)
    assert "sentry-trace_id=" + report.result in message.headers["baggage"]


def test_a_signal_sent_by_a_receiver_names_its_parent(project: Project) -> None:
    with project.worker():
        report = project.run(
            """
            from shopapp.signals import chained
            result = chained.send(None).id
            """
        )
        project.effects.wait_for(1, "sends_another")
    [message] = project.take("unread")
    assert message.headers["parent_id"] == message.headers["root_id"] == report.result
    assert message.headers["id"] != report.result


def test_a_broker_that_the_core_does_not_speak_goes_through_celery(make_project: MakeProject) -> None:
    """Published by Celery's own producer, and run by a worker all the same."""
    project = make_project(None, url="filesystem://")
    for folder in ("queue", "control"):
        (project.folder / folder).mkdir()
    with (project.folder / "local_settings.py").open("a") as settings:
        settings.write(
            "CELERY_BROKER_TRANSPORT_OPTIONS = {"
            f"'data_folder_in': '{project.folder}/queue', 'data_folder_out': '{project.folder}/queue',"
            f"'control_folder': '{project.folder}/control'}}\n"
        )
    project.run(
        """
        from datetime import date
        from shopapp.signals import my_signal
        my_signal.send("web", order_id=5, due=date(2026, 11, 23), numbers={1})
        """
    )
    with project.worker():
        [effect] = project.effects.wait_for(1)
    assert effect["arguments"] == {"order_id": 5, "due": "2026-11-23", "numbers": "{1}"}
