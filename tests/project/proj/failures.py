"""Keeps what `on_failure` is told."""

import threading
from typing import Any

noted: list[tuple[str, str, str]] = []
_more = threading.Condition()


def note(signal: Any, task_id: str, error: BaseException) -> None:
    with _more:
        noted.append((str(signal), task_id, repr(type(error))))
        _more.notify_all()


def wait_for(count: int) -> list[tuple[str, str, str]]:
    """What was told, once it is as much as that: `on_failure` is called on a thread of its own."""
    with _more:
        assert _more.wait_for(lambda: len(noted) >= count, 20), noted
        return noted
