"""Asking what may never answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from kombu import Connection, Queue

Answer = TypeVar("Answer")

#: How long a broker may take to answer over a connection of Celery's, in seconds.
ANSWER = 5.0


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` returns or raises. It is called in a thread of its own, which is left behind if it is not in time.

    Raises:
        TimeoutError: There was no answer in so many seconds.
    """
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="async-signals-inspection", daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def declare(connection: Connection, queue: Queue) -> None:
    """Declares a queue, over a connection of Celery's; connects first if need be. May wait for ever."""
    connection.ensure_connection(max_retries=1, timeout=ANSWER)
    with connection.channel() as channel:
        queue(channel).queue_declare()
