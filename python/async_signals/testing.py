"""For tests: see what is sent instead of sending it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import sending
from .dispatcher import AsyncSignal


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
    """Records what is published, in order, instead of publishing it.

    A signal that is sent in a transaction is recorded after the commit, and never if that is undone. In a
    ``TestCase``, use Django's ``captureOnCommitCallbacks(execute=True)`` around it, as for any hook. What could not
    be sent raises here as it would outside.

    Arguments:
        only: The signals to record; others go their usual way. None given: all of them.

    >>> from async_signals.signals import request_finished
    >>> with capture_signals() as sent:
    ...     _ = request_finished.send(None, path="/")
    >>> sent[0].kwargs
    {'path': '/'}
    """
    captured: list[CapturedSignal] = []
    outer = sending.recorder_for

    def record(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], task_id: str) -> None:
        captured.append(CapturedSignal(signal, sender, named, dict(options), task_id))

    def recorder_for(signal: AsyncSignal) -> sending.Recorder | None:
        if not only or signal in only:
            return record
        return None if outer is None else outer(signal)

    sending.recorder_for = recorder_for
    try:
        yield captured
    finally:
        sending.recorder_for = outer
