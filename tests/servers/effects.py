"""Watches what receivers do, in whichever process: the reading end of the file that the project writes to."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Effect = dict[str, Any]
#: A line that no receiver writes, which comes after all that was written before it.
_MARK = "null\n"


class Effects:
    """A named pipe that the project's receivers append lines to; nothing is polled for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Open for writing too: the pipe then never ends, and nobody who writes waits for a reader.
        self._descriptor = os.open(path, os.O_RDWR)
        self._seen: list[Effect] = []
        self._marks = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="effects", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with open(self._descriptor, encoding="utf-8", closefd=False) as lines:
            for line in lines:
                if line == "\n":
                    return
                with self._changed, contextlib.suppress(json.JSONDecodeError):
                    if line == _MARK:
                        self._marks += 1
                    else:
                        self._seen.append(json.loads(line))
                    self._changed.notify_all()

    def seen(self, receiver: str | None = None) -> list[Effect]:
        """What has been done so far, by one receiver or by all."""
        with self._changed:
            return [effect for effect in self._seen if receiver in {None, effect["receiver"]}]

    def wait_for(self, count: int, receiver: str | None = None, *, timeout: float = 60) -> list[Effect]:
        """Waits until a receiver (or all together) did `count` things, and returns them."""
        self.wait_until(lambda: len(self.seen(receiver)) >= count, f"{count} of {receiver or 'any'}", timeout=timeout)
        return self.seen(receiver)

    def wait_until(self, happened: Callable[[], bool], what: str, *, timeout: float = 60) -> None:
        """Waits until `happened` holds, asked again after every effect."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not happened():
                if not self._changed.wait(deadline - time.monotonic()) and not happened():
                    raise AssertionError(f"waited {timeout} s for {what}; seen: {self._seen}")

    def clear(self) -> None:
        """Forgets all that has been done so far, also what is on its way through the pipe still."""
        with self._changed:
            marks = self._marks + 1
        os.write(self._descriptor, _MARK.encode())
        with self._changed:
            assert self._changed.wait_for(lambda: self._marks >= marks, 30), "nobody reads the pipe of effects"
            self._seen.clear()

    def close(self) -> None:
        os.write(self._descriptor, b"\n")
        self._reader.join(5)
        os.close(self._descriptor)
