"""Async Signals: Django signals that are fired asynchronously through Celery.

>>> from async_signals import AsyncSignal
>>> order_placed = AsyncSignal(providing_args=("order_id",), name="shop.order_placed")
"""

from __future__ import annotations

import warnings
from importlib import metadata
from importlib.util import find_spec

from ._native import SenderRef
from .delivery import Delivery, current_delivery
from .dispatcher import AsyncSignal
from .errors import (
    BrokerMisconfigured,
    CeleryNotConfigured,
    DuplicateSignalName,
    NoWireName,
    Parked,
    ReceiversFailed,
    SignalNotSent,
    UndeclaredArgument,
)
from .sent import Sent

__all__ = [
    "AsyncSignal",
    "BrokerMisconfigured",
    "CeleryNotConfigured",
    "Delivery",
    "DuplicateSignalName",
    "NoWireName",
    "Parked",
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
    from . import exit as process_exit
    from . import references, tasks  # noqa: F401
    from .publishers import flush

    references.register_with_kombu()
    process_exit.install()
else:

    def flush(timeout: float | None = None) -> None:
        """Nothing is ever buffered without Celery."""


try:
    metadata.distribution("async-signals")
except metadata.PackageNotFoundError:
    pass
else:
    warnings.warn(
        "the distribution async-signals is installed beside django-async-signals, and both are imported as "
        "async_signals: which one's files are there depends on which came last; uninstall async-signals",
        UserWarning,
        stacklevel=2,
    )
