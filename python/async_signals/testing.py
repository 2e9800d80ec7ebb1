"""For tests: see what is sent instead of sending it."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import sending, settings
from ._native import encode_body
from .dispatcher import AsyncSignal
from .sent import Sent


@dataclasses.dataclass(frozen=True)
class CapturedSignal:
    """One send.

    Attributes:
        signal: The signal.
        sender: Its sender.
        kwargs: Its named arguments.
        options: What ``options()`` was given.
        id: The id that the send returned.
    """

    signal: AsyncSignal
    sender: Any
    kwargs: dict[str, Any]
    options: dict[str, Any]
    id: str


@contextmanager
def capture_signals(*only: AsyncSignal) -> Iterator[list[CapturedSignal]]:
    """Records what is sent, in order, instead of sending it.

    What could not be sent raises here as it would outside.

    Arguments:
        only: The signals to record; others go their usual way. None given: all of them.

    >>> from async_signals.signals import request_finished
    >>> with capture_signals() as sent:
    ...     _ = request_finished.send(None, path="/")
    >>> sent[0].kwargs
    {'path': '/'}
    """
    captured: list[CapturedSignal] = []
    outer = sending.recorder

    def record(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any]) -> Sent | None:
        if only and signal not in only:
            return outer(signal, sender, named, options) if outer is not None else None
        encode_body(signal._name or "", sender, named, settings.get().max_message_size)
        task_id = str(options.get("task_id") or uuid.uuid4())
        captured.append(CapturedSignal(signal, sender, dict(named), dict(options), task_id))
        return Sent((), task_id)

    sending.recorder = record
    try:
        yield captured
    finally:
        sending.recorder = outer
