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
        attempt: Which try of its receivers this is: 1 is the first, and each retry counts one more.
        queue: The queue it was sent to; None where it did not cross one.
        sent_at: When it was sent.
        redeliveries: How often a worker took it before, within this try, and did not finish it.
    """

    id: str
    signal: str
    attempt: int
    queue: str | None
    sent_at: datetime | None
    redeliveries: int = 0


current: ContextVar[Delivery | None] = ContextVar("async_signals_delivery", default=None)


def current_delivery() -> Delivery | None:
    """The message that the running receiver was called for; None outside a worker."""
    return current.get()
