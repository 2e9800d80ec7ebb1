"""What a send returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Sent(list[tuple[Any, Any]]):
    """``(receiver, response)`` pairs of the receivers that ran here: none when the work went to Celery.

    Attributes:
        id: The id of the task; None when the receivers ran here without one.
    """

    __slots__ = ("id",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = (), id: str | None = None) -> None:
        super().__init__(pairs)
        self.id = id

    def __repr__(self) -> str:
        return f"<Sent {self.id or 'here'} {super().__repr__()}>"
