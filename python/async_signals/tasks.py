"""The Celery task that carries every signal, as a stock Celery worker runs it."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any

from celery import Task, shared_task
from celery.worker.request import Request

from . import names, parking, propagation, references, settings
from .application import TASK
from .delivery import Delivery
from .dispatcher import receiver_name
from .errors import Parked, ReceiversFailed

logger = logging.getLogger("async_signals")


class SignalRequest(Request):
    """A worker's view of one message: says of one that goes back that it was delivered before.

    Brokers say so themselves, but kombu's SQLAlchemy transport forgets it, and
    without it a receiver that kills its worker would be tried for ever.
    """

    def reject(self, requeue: bool = False) -> None:
        """Gives the message back, or drops it."""
        info = self._message.properties.get("delivery_info") if self._message.properties else None
        if requeue and isinstance(info, dict):
            info["redelivered"] = True
        super().reject(requeue)


@shared_task(
    name=TASK,
    bind=True,
    typing=False,
    ignore_result=True,
    serializer="json",
    # Said in the log already, where it happened.
    throws=(Parked,),
    # Acknowledged after the receivers ran, and back in the queue when a pool process dies of them.
    acks_late=True,
    acks_on_failure_or_timeout=True,
    reject_on_worker_lost=True,
    Request="async_signals.tasks:SignalRequest",
)
def propagate(self: Task, signal: str, sender: Any, /, **named: Any) -> None:
    """Calls the receivers of a signal, one after the other.

    Arguments:
        signal: The signal's wire name.
        sender: The sender, or a reference to it.
        named: The arguments as they were sent.

    Raises:
        Parked: It could not be run here, and is in the dead-letter queue with the reason.
        ReceiversFailed: At least one receiver raised. Each failure is in the log.
    """
    incoming = parking.Incoming(self, signal, sender, named)
    if incoming.redelivered:
        # A worker died, or lost its broker, with this message in hand. It is counted in the message itself,
        # since brokers only tell that it was delivered before, not how often.
        incoming.deliveries += 1
        if incoming.deliveries >= settings.get().max_deliveries:
            incoming.park("TooManyDeliveries", f"taken {incoming.deliveries} times by workers that did not finish it")
        incoming.send_again()
        return
    known = names.find(str(signal))
    if known is None:
        incoming.park("UnknownSignal", f"this worker has no signal {signal!r}")
    sent_at = incoming.sent_at
    delivery = Delivery(
        id=incoming.id,
        signal=signal,
        attempt=incoming.deliveries + 1,
        queue=incoming.queue,
        sent_at=None if sent_at is None else datetime.fromtimestamp(sent_at, timezone.utc),
    )
    try:
        responses = propagation.call_receivers(known, sender, named, delivery)
    except (references.UnresolvableReference, references.MissingRow) as error:
        incoming.park(type(error).__name__, str(error))
    failures = [(receiver, response) for receiver, response in responses if isinstance(response, Exception)]
    if failures:
        listed = "; ".join(f"{receiver_name(receiver)}: {error!r}"[:300] for receiver, error in failures)
        raise ReceiversFailed(f"{len(failures)} of {len(responses)} receivers of {signal} failed: {listed}")
