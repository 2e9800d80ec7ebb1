"""Waiting for what gives no sign of its own: a file that grows, a queue that empties."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: How soon to look again, in seconds.
PAUSE = 0.02


def eventually(happened: Callable[[], bool], what: str | Callable[[], str], *, timeout: float = 60) -> None:
    """Looks again and again until `happened` holds, or raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    never = threading.Event()
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what if isinstance(what, str) else what()}")
        never.wait(PAUSE)
