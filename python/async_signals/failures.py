"""A receiver that failed, as the core is told of it."""

from __future__ import annotations

import traceback
from collections.abc import Collection
from typing import Any, NamedTuple

from .errors import ReceiversFailed
from .retries import Retry


class Failure(NamedTuple):
    """A receiver that did not do its work.

    Attributes:
        receiver: Its name in messages.
        error: What it raised; None: the message names it, and there is none of that name here.
        retry: Whether it is tried again; None: it is in the log, and that is all.
    """

    receiver: str
    error: Exception | None
    retry: Retry | None

    def __str__(self) -> str:
        return f"{self.receiver}: {shown(self.error)}" if self.error is not None else f"{self.receiver} is not here"

    def for_core(self) -> dict[str, Any]:
        """The same in plain values; the core bounds the texts."""
        if self.error is None:
            return {"receiver": self.receiver, "unknown": True}
        told: dict[str, Any] = {"receiver": self.receiver}
        if self.retry is not None:
            told["error"] = shown(self.error)
            told["traceback"] = _encodable("".join(traceback.format_exception(self.error)))
            told["retry"] = self.retry.for_error(self.error)
        return told


def summary(signal: str, failures: Collection[Failure]) -> ReceiversFailed:
    """What is said of a message whose receivers failed: to Celery, and to its monitors.

    Arguments:
        signal: The signal's wire name.
    """
    listed = "; ".join(str(failure)[:300] for failure in failures)
    receivers = "receiver" if len(failures) == 1 else "receivers"
    return ReceiversFailed(f"{len(failures)} {receivers} of {signal} failed: {listed}")


def shown(error: BaseException) -> str:
    """An exception in a line, also one that cannot show itself."""
    try:
        return _encodable(repr(error)[:1000])
    except Exception:
        return type(error).__qualname__


def _encodable(text: str) -> str:
    """The text without lone surrogates, which file names may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()
