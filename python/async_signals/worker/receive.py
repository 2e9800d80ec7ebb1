"""What a thread of a worker does with one message: the short way of signals, and Celery's way of all else."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from async_signals import names, pauses, propagation
from async_signals.delivery import LazyDelivery
from async_signals.failures import Failure, summary
from async_signals.references import MissingRow, UnresolvableReference

from .celery_tasks import CeleryTasks
from .connections import Connections
from .events import Events

if TYPE_CHECKING:
    from async_signals._native import Job

logger = logging.getLogger("async_signals.worker")

#: What it says of a message: all ran; some failed; it is paused; or it cannot be run here: a word for programs, and a
#: sentence.
Outcome = None | list[dict[str, Any]] | Literal["paused"] | tuple[str, str]


class Receiver:
    """What the native worker calls, from any of its threads.

    Arguments:
        tasks: Runs what is no signal, and signals that somebody watches.
        events: Told of each signal, while a monitor wants to know.
        connections: Closed after each message.
    """

    def __init__(self, tasks: CeleryTasks, events: Events, connections: Connections) -> None:
        self._tasks = tasks
        self._events = events
        self._connections = connections
        #: Runs any other task, and settles it.
        self.task = tasks.run

    @property
    def wants_signals(self) -> bool:
        """Whether signals go Celery's way too, since somebody watches how it runs tasks."""
        return self._tasks.wants_signals

    def signal(self, name: str, sender: Any, named: dict[str, Any], bare: bool, job: Job) -> Outcome:
        """Calls the receivers of a signal.

        Arguments:
            bare: Whether sender and arguments hold no references.
        """
        known = names.find(name)
        paused = pauses.current()
        if paused and paused.covers(pauses.names_of(known, name), None):
            logger.info("Signal %s[%s] is paused, and waits in %s", name, job.id, self._tasks.queue_aside)
            return "paused"
        if known is None:
            return "UnknownSignal", f"this worker has no signal {name!r}"
        only = job.receivers
        delivery = LazyDelivery(name, job)
        wanted = self._events.wanted
        if wanted:
            self._events.received(job)
            self._events.started(job)
        begun = time.perf_counter()
        try:
            failures = propagation.run(
                known, sender, named, delivery, None if only is None else frozenset(only), bare=bare
            )
        except (UnresolvableReference, MissingRow) as error:
            if wanted:
                self._events.failed(job, error)
            return type(error).__name__, str(error)
        finally:
            self._connections.close()
        if failures:
            return self._failed(job, name, failures)
        if wanted:
            self._events.succeeded(job, time.perf_counter() - begun)
        if logger.isEnabledFor(logging.INFO):
            logger.info("Signal %s[%s] ran in %.6f s", name, job.id, time.perf_counter() - begun)
        return None

    def escaped(self, error: Exception) -> None:
        """Told of an exception that no receiver is to blame for; its message is dead-lettered."""
        logger.error("A message could not be run: %s", error, exc_info=error)

    def _failed(self, job: Job, name: str, failures: list[Failure]) -> list[dict[str, Any]]:
        failed = summary(name, failures)
        # As Celery's worker says of a failure that was expected: each receiver's own is in the log already.
        logger.info("Message %s: %s", job.id, failed)
        if self._events.wanted:
            # Celery's word for it, also where receivers are tried again: that is another message.
            self._events.failed(job, failed)
        return [failure.for_core() for failure in failures]
