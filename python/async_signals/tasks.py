"""The Celery task that carries every signal, as a stock Celery worker runs it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from celery import Celery, Task, shared_task

from . import follow_ups, names, pauses, propagation, references, transactions
from .delivery import Delivery
from .errors import DeadLettered, ReceiversFailed
from .failures import summary
from .routing import TASK

logger = logging.getLogger("async_signals")


#: What the promises of a signal rest on: neither the project's base task class nor its ``task_annotations`` change it.
#: All else is theirs: rate and time limits, ``track_started``, hooks such as ``on_failure``, ``__call__``.
_PROMISED: dict[str, Any] = {
    "typing": False,
    "ignore_result": True,
    "serializer": "json",
    # Each failure is in the log already, where it happened.
    "throws": (DeadLettered, ReceiversFailed),
    # Acknowledged after the receivers ran, and back in the queue when a pool process dies of them.
    "acks_late": True,
    "acks_on_failure_or_timeout": True,
    "acks_on_failure": True,
    "acks_on_timeout": True,
    "reject_on_worker_lost": True,
    # Receivers are tried again one by one (``retry=``): the task as a whole would call again those that did their work.
    "autoretry_for": (),
    "retry_on_worker_lost": False,
    "Request": "async_signals.task_request:SignalRequest",
}


def _keep_promises(task: type[Task], app: Celery) -> None:
    """Is called by Celery when it has applied the project's settings and annotations to the task."""
    super(task, task).on_bound(app)
    for name, value in _PROMISED.items():
        setattr(task, name, value)


@shared_task(name=TASK, bind=True, on_bound=classmethod(_keep_promises), **_PROMISED)
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
        # A worker died with this message, lost its broker, or stopped before it had begun it: which, no broker tells.
        # It is counted in the message itself, since brokers only tell that it was delivered before, not how often.
        message.requeue()
        return
    known = names.find(str(signal))
    paused = pauses.current()
    if paused and paused.covers(pauses.names_of(known, str(signal)), message.queue):
        logger.info("Signal %s[%s] is paused, and waits in %s", signal, self.request.id, message.set_aside())
        return
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
    # A project's own ``__call__`` may run the task in a transaction, and eager ones run in their caller's.
    kept = transactions.in_blocks()
    try:
        failures = propagation.run(known, sender, named, delivery, incoming.receivers)
    except (references.UnresolvableReference, references.MissingRow) as error:
        message.dead_letter(type(error).__name__, str(error))
    finally:
        transactions.leave_blocks(kept=kept)
    if failures:
        message.publish_follow_ups(signal, failures)
        raise summary(signal, failures)
