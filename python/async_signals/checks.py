"""System checks."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from . import names, routing
from .errors import BrokerMisconfigured


def register_checks() -> None:
    """Makes ``manage.py check`` run them."""
    register(check_settings, "async_signals")


def check_settings(**_: Any) -> list[CheckMessage]:
    """Whether a worker that reads what Celery's settings name would meet every signal."""
    try:
        app = routing.find_app()
    except Exception as error:
        return [Error(str(error), id="async_signals.E001")]
    if app is None:
        return [
            CheckWarning(
                "Celery is not configured, so the receivers of asynchronous signals run where they are sent.",
                hint="Set broker_url in Celery's settings, or ASYNC_SIGNALS['app'].",
                id="async_signals.W001",
            )
        ]
    return [*_check_queues(app), *_check_broker(app)]


def _check_queues(app: Any) -> list[CheckMessage]:
    conf = app.conf
    known = {queue.name for queue in conf.task_queues} if conf.task_queues else {conf.task_default_queue}
    routed = conf.task_routes.values() if isinstance(conf.task_routes, dict) else ()
    known.update(
        str(getattr(queue, "name", queue))
        for target in routed
        if (queue := target.get("queue") if isinstance(target, dict) else target)
    )
    unknown: dict[str, list[str]] = {}
    for signal in names.known():
        if signal.queue is not None and signal.queue not in known:
            unknown.setdefault(signal.queue, []).append(signal.name)
    return [
        CheckWarning(
            f"Queue {queue!r} of signal {', '.join(signals)} is not in Celery's settings; "
            f"a worker reads it only if it is told to.",
            hint=f"Start a worker with -Q {conf.task_default_queue},{queue}, or add the queue to task_queues.",
            id="async_signals.W002",
        )
        for queue, signals in sorted(unknown.items())
    ]


def _check_broker(app: Any) -> list[CheckMessage]:
    # Both need kombu, and this module is imported where Celery is missing too.
    from .publishing.broker import broker_options
    from .routing import NotNative

    try:
        broker_options(app)
    except NotNative as reason:
        return [
            CheckWarning(
                f"Signals are published by Celery's own producer, not by the native one: {reason}.",
                hint="Use amqp, amqps, redis, rediss or sqla+sqlite for the fast way and for deadlines.",
                id="async_signals.W003",
            )
        ]
    except BrokerMisconfigured as error:
        return [Error(str(error), id="async_signals.E002")]
    except Exception as error:
        return [Error(str(error), id="async_signals.E003")]
    return []
