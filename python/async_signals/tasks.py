"""The Celery task that carries every signal, as a stock Celery worker runs it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from celery import Task, shared_task

from . import follow_ups, names, propagation, references
from .delivery import Delivery
from .errors import DeadLettered
from .failures import summary
from .routing import TASK

logger = logging.getLogger("async_signals")


@shared_task(
    name=TASK,
    bind=True,
    typing=False,
    ignore_result=True,
    serializer="json",
    # Said in the log already, where it happened.
    throws=(DeadLettered,),
    # Acknowledged after the receivers ran, and back in the queue when a pool process dies of them.
    acks_late=True,
    acks_on_failure_or_timeout=True,
    reject_on_worker_lost=True,
    Request="async_signals.task_request:SignalRequest",
)
def propagate(self: Task, signal: str, sender: Any, /, **named: Any) -> None:
    """Calls the receivers of a signal, one after the other.

    Arguments:
        signal: The signal's wire name.
        sender: The sender, or a reference to it.
        named: The arguments as they were sent.

    Raises:
        DeadLettered: It could not be run here, and is in the dead-letter queue with the reason.
        ReceiversFailed: At least one receiver raised. Each failure is in the log, and what its ``retry`` asks for
            is on its way.
    """
    message = follow_ups.TaskMessage(self, signal, sender, named)
    if message.redelivered:
        # A worker died, or lost its broker, with this message in hand. It is counted in the message itself,
        # since brokers only tell that it was delivered before, not how often.
        message.requeue()
        return
    known = names.find(str(signal))
    if known is None:
        message.dead_letter("UnknownSignal", f"this worker has no signal {signal!r}")
    incoming = message.incoming
    delivery = Delivery(
        id=self.request.id,
        signal=signal,
        attempt=incoming.attempt,
        queue=message.queue,
        sent_at=None if incoming.sent_at is None else datetime.fromtimestamp(incoming.sent_at, UTC),
        redeliveries=incoming.deliveries,
    )
    try:
        failures = propagation.run(known, sender, named, delivery, incoming.receivers)
    except (references.UnresolvableReference, references.MissingRow) as error:
        message.dead_letter(type(error).__name__, str(error))
    if failures:
        message.publish_follow_ups(signal, failures)
        raise summary(signal, failures)
