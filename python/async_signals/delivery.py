"""What a receiver may ask about the message that called it."""

from __future__ import annotations

import dataclasses
from contextvars import ContextVar
from datetime import datetime


@dataclasses.dataclass(frozen=True)
class Delivery:
    """The message that a receiver was called for.

    Attributes:
        id: The task's id; a message that comes again carries the same one.
        signal: The signal's wire name.
        attempt: 1 for the first time that a worker took it.
        queue: The queue it came from; None where it did not cross one.
        sent_at: When it was sent.
    """

    id: str
    signal: str
    attempt: int
    queue: str | None
    sent_at: datetime | None


current: ContextVar[Delivery | None] = ContextVar("async_signals_delivery", default=None)


def current_delivery() -> Delivery | None:
    """The message that the running receiver was called for; None outside a worker."""
    return current.get()
