"""Keeps a process that dies again and again from being started again and again."""

from __future__ import annotations

import time

#: One that lived so long did not die of its start, in seconds.
_LIVED = 30.0
#: How many that did not are replaced at once: a message that kills its process is dead-lettered after some.
_FREE = 5
#: The first pause, in seconds. It doubles each time.
_FIRST = 0.5
#: The longest.
_LONGEST = 30.0


class Brake:
    """One process's place.

    Attributes:
        free_at: From when on a process may be started there, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.free_at = 0.0
        self._deaths = 0

    def is_free(self, now: float) -> bool:
        return now >= self.free_at

    def press(self, lived: float) -> None:
        """A process has died. `lived` is for how many seconds it was there."""
        self._deaths = 1 if lived >= _LIVED else self._deaths + 1
        if self._deaths > _FREE:
            self.free_at = time.monotonic() + min(_LONGEST, _FIRST * 2.0 ** (self._deaths - _FREE - 1))

    def release(self) -> None:
        """A process has ended as it was to."""
        self._deaths = 0
