"""What the worker's core tells, as lines of a log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from async_signals.follow_ups import dead_letter_level

logger = logging.getLogger("async_signals.worker")


class Observer:
    """Told by the native worker, on a thread of its own.

    Arguments:
        on_connected: Called each time that the queues are read, with the broker's address.
    """

    def __init__(self, on_connected: Callable[[str], None]) -> None:
        self._on_connected = on_connected

    def connected(self, broker: str) -> None:
        logger.info("Connected to %s", broker)
        self._on_connected(broker)

    def disconnected(self, error: str, transient: bool) -> None:
        if transient:
            logger.error("No connection to the broker: %s. Trying again…", error)

    def expired(self, id: str, task: str) -> None:
        logger.info("Task %s[%s] has expired, and is left alone", task, id)

    def delayed(self, id: str, task: str, seconds: float) -> None:
        logger.debug("Task %s[%s] waits %.1f s for its time", task, id, seconds)

    def redelivered(self, id: str, deliveries: int) -> None:
        logger.warning("Message %s was delivered before; this is delivery %d", id, deliveries + 1)

    def dead_lettered(self, id: str, queue: str | None, kind: str, reason: str) -> None:
        level = dead_letter_level(kind)
        if queue is None:
            logger.log(level, "Message %s is rejected: %s", id, reason)
        else:
            logger.log(level, "Message %s is dead-lettered to %s: %s", id, queue, reason)

    def retried(self, id: str, receivers: list[str], seconds: float) -> None:
        logger.info("Message %s is tried again in %.1f s: %s", id, seconds, ", ".join(receivers))

    def hindered(self, id: str, queue: str, error: str) -> None:
        logger.error("Message %s could not be put into %s, which is tried again: %s", id, queue, error)

    def timed_out(self, id: str, task: str, seconds: float) -> None:
        logger.error("Task %s[%s] took longer than its limit of %s s: its process ends", task, id, seconds)
