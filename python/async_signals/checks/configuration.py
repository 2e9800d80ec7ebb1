"""Whether Celery's settings and ``ASYNC_SIGNALS`` can be read, and whether a worker would take what is sent by them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from async_signals import routing, settings
from async_signals.errors import BrokerMisconfigured

from .messages import never_raises
from .queues import check_queues

if TYPE_CHECKING:
    from celery import Celery


@never_raises
def check_settings(**_: Any) -> Iterable[CheckMessage]:
    """Whether signals can be sent, and whether a worker that reads what Celery's settings name would take them."""
    app: Any = None
    try:
        yield from _check_on_failure(settings.get().on_failure)
        app = routing.find_app()
    except Exception as error:
        yield Error(str(error), id="async_signals.E001")
    if app is None:
        return
    from celery import Celery

    if not isinstance(app, Celery):
        yield Error(f"ASYNC_SIGNALS['app'] is {app!r}, which is no Celery app.", id="async_signals.E001")
    elif not app.conf.task_always_eager:
        yield from _check_broker(app)
        yield from _check_content(app)
        yield from check_queues(app)


def _check_on_failure(callback: Any) -> Iterable[CheckMessage]:
    try:
        found = import_string(callback) if isinstance(callback, str) else callback
        reason = None if found is None or callable(found) else f"{found!r} is not callable"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        yield Error(
            f"ASYNC_SIGNALS['on_failure'] is {callback!r}, which cannot be called: {reason}.",
            hint="Nothing but the log would tell of signals that are lost after send has returned.",
            id="async_signals.E006",
        )


def _check_broker(app: Celery) -> Iterable[CheckMessage]:
    from async_signals.publishing.broker import broker_options

    try:
        broker_options(app)
    except routing.NotNative as reason:
        yield CheckWarning(
            f"Signals are published by Celery's own producer, not by the native one: {reason}. Then "
            f"durability='confirmed' does not wait for the broker's confirmation, and a message for which there is no "
            f"queue is not noticed.",
            hint="The native one speaks amqp, amqps, redis, rediss and sqla+sqlite, by kombu's own transports.",
            id="async_signals.W003",
        )
    except BrokerMisconfigured as error:
        yield Error(str(error), id="async_signals.E002")
    except Exception as error:
        yield Error(str(error), id="async_signals.E003")


def _check_content(app: Celery) -> Iterable[CheckMessage]:
    from kombu.serialization import prepare_accept_content

    accepted = app.conf.accept_content
    try:
        lacks_json = "application/json" not in prepare_accept_content(accepted or ())
    except Exception as error:
        yield Error(f"Celery cannot read accept_content: {error}", id="async_signals.E004")
        return
    if lacks_json:
        yield Error(
            f"Signals are sent as JSON, and accept_content is {accepted!r}: a worker throws each of them away.",
            hint="Add 'json' to accept_content.",
            id="async_signals.E005",
        )
