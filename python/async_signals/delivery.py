"""What a receiver may ask about the message that called it."""

from __future__ import annotations

import dataclasses
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Protocol


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


class LazyDelivery:
    """A delivery that is made when a receiver asks for it, which hardly any does.

    Arguments:
        signal: The signal's wire name.
        message: What knows the rest: the native worker's job.
    """

    __slots__ = ("_delivery", "_message", "signal")

    def __init__(self, signal: str, message: Message) -> None:
        self.signal = signal
        self._message = message
        self._delivery: Delivery | None = None

    @property
    def id(self) -> str:
        """The task's id."""
        return self._message.id

    @property
    def attempt(self) -> int:
        """Which try of its receivers this is."""
        return self._message.attempt

    @property
    def delivery(self) -> Delivery:
        """The same one each time."""
        if self._delivery is None:
            message = self._message
            sent_at = message.sent_at
            self._delivery = Delivery(
                id=message.id,
                signal=self.signal,
                attempt=message.attempt,
                queue=message.queue,
                sent_at=None if sent_at is None else datetime.fromtimestamp(sent_at, UTC),
                redeliveries=message.deliveries,
            )
        return self._delivery


class Message(Protocol):
    """What a delivery is made of."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def queue(self) -> str: ...
    @property
    def sent_at(self) -> float | None: ...
    @property
    def deliveries(self) -> int: ...


current: ContextVar[Delivery | LazyDelivery | None] = ContextVar("async_signals_delivery", default=None)


def current_delivery() -> Delivery | None:
    """The message that the running receiver was called for; None outside a worker."""
    found = current.get()
    return found.delivery if isinstance(found, LazyDelivery) else found
