"""Async Signals: Django signals that are fired asynchronously through Celery.

>>> from async_signals import AsyncSignal
>>> order_placed = AsyncSignal(providing_args=("order_id",), name="shop.order_placed")
"""

from __future__ import annotations

from importlib.util import find_spec

from .delivery import Delivery, current_delivery
from .dispatcher import AsyncSignal
from .errors import (
    BrokerMisconfigured,
    CeleryNotConfigured,
    DuplicateSignalName,
    NoWireName,
    ReceiversFailed,
    SignalNotSent,
    UndeclaredArgument,
)
from .references import SenderRef
from .sent import Sent

__all__ = [
    "AsyncSignal",
    "BrokerMisconfigured",
    "CeleryNotConfigured",
    "Delivery",
    "DuplicateSignalName",
    "NoWireName",
    "ReceiversFailed",
    "SenderRef",
    "Sent",
    "SignalNotSent",
    "UndeclaredArgument",
    "current_delivery",
    "flush",
]

if find_spec("celery") is not None:
    # Whoever imports a signal can run its task: a worker needs nothing else.
    from . import exit, references, tasks
    from .publishers import flush

    references.register_with_kombu()
    exit.install()
else:

    def flush(timeout: float | None = None) -> None:
        """Nothing is ever buffered without Celery."""
