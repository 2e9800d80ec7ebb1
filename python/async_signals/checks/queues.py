"""Whether the queues of signals are read, and are what signals take them for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning

from async_signals import settings
from async_signals.inspection.routes import queue_of
from async_signals.inspection.signals import sent_signals

from .messages import listed

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.dispatcher import AsyncSignal


def check_queues(app: Celery) -> Iterable[CheckMessage]:
    """What is to be said of the queues that Celery's router has for signals."""
    from celery.utils.functional import maybe_evaluate

    conf = app.conf
    try:
        # Copies: a router adds what is missing to the queues that it knows, and a worker would read that too.
        queues = app.amqp.Queues(conf.task_queues, create_missing=True)
        router = app.amqp.Router(queues)
        for route in router.routes:
            maybe_evaluate(route)
    except Exception as error:
        yield Error(
            f"Celery cannot read task_queues or task_routes: {type(error).__name__}: {error}", id="async_signals.E004"
        )
        return
    declared = set(queues) | set(queues.aliases)
    signals = {signal: queue_of(signal, router) for signal in sent_signals()}
    yield from _check_dead_letters(set(signals.values()))
    if _is_rabbitmq(app):
        yield from _check_priorities(signals, queues)
    if not conf.task_queues and conf.task_create_missing_queues:
        return  # which queues there are, workers are told by -Q
    unread: dict[str, list[str]] = {}
    for signal, queue in signals.items():
        if queue is not None and queue not in declared:
            unread.setdefault(queue, []).append(signal.name)
    for queue, of_signals in sorted(unread.items()):
        if conf.task_create_missing_queues:
            what = "a worker reads it only if it is told to"
            hint = f"Add it to task_queues, or start a worker with -Q {queue}."
        else:
            what = "and task_create_missing_queues is off: the signal cannot be sent"
            hint = "Add it to task_queues."
        yield CheckWarning(
            f"Queue {queue!r} of {listed(of_signals)} is not in Celery's settings; {what}.",
            hint=hint,
            id="async_signals.W002",
        )


def _check_dead_letters(of_signals: set[str | None]) -> Iterable[CheckMessage]:
    for queue in sorted(filter(None, of_signals)):
        dead_letters = settings.get().dead_letter_queue(queue)
        if dead_letters in of_signals:
            yield Error(
                f"ASYNC_SIGNALS['dead_letters'] has what cannot be run from queue {queue!r} dead-lettered to "
                f"{dead_letters!r}, which is a queue of signals: a worker takes it from there, and dead-letters it "
                f"again, for ever.",
                hint="Name a queue that no worker reads, such as '{queue}.dead'.",
                id="async_signals.E007",
            )


def _is_rabbitmq(app: Celery) -> bool:
    try:
        return bool(app.connection_for_write().get_transport_cls().driver_type == "amqp")
    except Exception:
        return False  # check_settings says so of a URL that cannot be used


def _check_priorities(signals: dict[AsyncSignal, str | None], queues: Any) -> Iterable[CheckMessage]:
    """Of RabbitMQ, which looks at priorities only in queues that were declared for them."""
    without: dict[str, list[str]] = {}
    for signal, name in signals.items():
        queue = queues.get(name)
        if signal.priority and queue is not None and not _has_priorities(queue):
            without.setdefault(queue.name, []).append(signal.name)
    for name, of_signals in sorted(without.items()):
        yield CheckWarning(
            f"Queue {name!r} has no x-max-priority, so RabbitMQ does not look at the priority of {listed(of_signals)}.",
            hint="Set task_queue_max_priority, or max_priority of the Queue in task_queues. A queue that is there "
            "already has to be deleted first: RabbitMQ does not change it.",
            id="async_signals.W012",
        )


def _has_priorities(queue: Any) -> bool:
    arguments = queue.queue_arguments or {}
    # A quorum queue has two of its own since RabbitMQ 4, and who declares nothing knows nothing of the queue.
    kind = arguments.get("x-queue-type", "classic")
    return bool(queue.max_priority or arguments.get("x-max-priority") or kind != "classic" or queue.no_declare)
