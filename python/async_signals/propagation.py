"""From a message to its receivers, the same wherever they run."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ._native import resolve_call
from .delivery import Delivery, current
from .references import Lookup, SkipReceivers

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

logger = logging.getLogger("async_signals")


def here(task_id: str, name: str) -> Delivery:
    """The delivery of a signal that does not cross a queue."""
    return Delivery(task_id, name, 1, None, datetime.now(timezone.utc))


def call_receivers(
    signal: AsyncSignal, sender: Any, named: dict[str, Any], delivery: Delivery
) -> list[tuple[Any, Any]]:
    """Puts the real values in the place of references, and calls every receiver.

    Returns:
        ``(receiver, response or exception)`` pairs.
    """
    try:
        sender, named = resolve_call(sender, named, Lookup(signal.on_missing))
    except SkipReceivers as missing:
        logger.info("Signal %s[%s] is skipped: %s", delivery.signal, delivery.id, missing)
        return []
    if not signal.has_listeners(sender):
        logger.warning("Signal %s[%s] has no receivers here", delivery.signal, delivery.id)
        return []
    token = current.set(delivery)
    try:
        return signal.call_receivers(sender, named)
    finally:
        current.reset(token)
