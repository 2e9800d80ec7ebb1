"""Async Signals: Django signals that are fired asynchronously through Celery.

>>> from async_signals import AsyncSignal
>>> order_placed = AsyncSignal(providing_args=("order_id",), name="shop.order_placed")
"""

from __future__ import annotations

try:
    from ._native import SenderRef
except ImportError as error:
    raise ImportError(
        f"this Python cannot load the native module of django-async-signals ({error}); free-threaded builds and "
        f"sub-interpreters are not supported (under mod_wsgi, set WSGIApplicationGroup %{{GLOBAL}})"
    ) from error

import warnings
from typing import Any

from . import compat, publishing
from .delivery import Delivery, current_delivery
from .dispatcher import AsyncSignal
from .errors import (
    AsyncSignalsDeprecationWarning,
    BrokerMisconfigured,
    CeleryNotConfigured,
    DeadLettered,
    DuplicateSignalName,
    NoWireName,
    ReceiversFailed,
    SignalNotSent,
    UndeclaredArgument,
)
from .publishing import flush
from .sending import Sent

__all__ = [
    "AsyncSignal",
    "AsyncSignalsDeprecationWarning",
    "BrokerMisconfigured",
    "CeleryNotConfigured",
    "DeadLettered",
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

publishing.install()

if compat.HAS_CELERY:
    # Whoever imports a signal can run its task: a worker needs nothing else.
    from . import references, tasks  # noqa: F401

    references.register_with_kombu()

#: Names of earlier versions, and those that have taken their places: docs/upgrading.md has them, too.
_RENAMED = {"Parked": "DeadLettered"}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"async_signals.{name} is called async_signals.{_RENAMED[name]} now; the old name will be removed",
        AsyncSignalsDeprecationWarning,
        stacklevel=2,
    )
    return globals()[_RENAMED[name]]
