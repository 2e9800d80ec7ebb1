"""Notes every run of a receiver, for the pages that show what ran where.

A shop that earns money does not need this; it is here because a signal that works
leaves nothing to look at.
"""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard import current_process  # names the processes of Celery's pool
from django.dispatch import Signal
from django.utils import timezone

from async_signals import current_delivery

from . import signals
from .models import Order, ReceiverRun

Receiver = Callable[..., Any]


def recorded(receiver: Receiver) -> Receiver:
    """Wrap ``receiver`` so that each run leaves a :class:`ReceiverRun`."""
    if inspect.iscoroutinefunction(receiver):

        @wraps(receiver)
        async def run(sender: Any, **kwargs: Any) -> Any:
            note = _start(receiver, kwargs)
            try:
                return await receiver(sender=sender, **kwargs)
            except Exception as error:
                note.failure = _describe(error)
                raise
            finally:
                note.finished_at = timezone.now()
                await note.asave()

    else:

        @wraps(receiver)
        def run(sender: Any, **kwargs: Any) -> Any:
            note = _start(receiver, kwargs)
            try:
                return receiver(sender=sender, **kwargs)
            except Exception as error:
                note.failure = _describe(error)
                raise
            finally:
                note.finished_at = timezone.now()
                note.save()

    return run


def _start(receiver: Receiver, kwargs: dict[str, Any]) -> ReceiverRun:
    now = timezone.now()
    order = kwargs.get("order")
    note = ReceiverRun(
        signal=_name(kwargs["signal"]),
        receiver=receiver.__name__,
        order=order if isinstance(order, Order) else None,
        about=str(order or kwargs.get("product") or ""),
        pid=os.getpid(),
        process=current_process().name,
        sent_at=now,
        started_at=now,
    )
    delivery = current_delivery()
    if delivery is not None:  # None: a synchronous signal, or Celery is not configured
        note.message = delivery.id
        note.queue = delivery.queue or ""
        note.sent_at = delivery.sent_at or now
    return note


def _name(signal: Signal) -> str:
    return next((name for name, value in vars(signals).items() if value is signal), "?")


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
