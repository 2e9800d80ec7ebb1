"""Celery's own producer, for brokers that the core does not speak to: on threads of ours, so that a deadline holds.

kombu's producers block for as long as the broker pleases. Here a few threads publish by them; who sends waits for its
message until its deadline, and in the background does not wait at all. What kombu cannot tell stays unknown: whether a
queue took the message, and, unless ``confirm_publish`` is set, whether the broker has it.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from async_signals import settings
from async_signals.errors import SignalNotSent

from . import failure_reports

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("async_signals")

#: How many threads publish at most. A broker that accepts and never answers may hold each of them.
MOST_THREADS = 8
#: For how long a thread that has nothing to do is kept, in seconds.
_IDLE = 10.0
#: How many task-sent events may wait; more are dropped, as Celery drops them when the broker is away.
_MOST_EVENTS = 1000


class CeleryMessage:
    """A message that is ready to be published by Celery's own producer.

    Arguments:
        app: The app whose producers publish it.
        task_id: The task's id.
        body: What kombu's ``Producer.publish`` gets first.
        arguments: What it gets beside.
    """

    __slots__ = ("_app", "_arguments", "_body", "_context", "id")

    def __init__(self, app: Celery, task_id: str, body: Any, arguments: dict[str, Any]) -> None:
        self.id = task_id
        self._app = app
        self._body = body
        self._arguments = arguments
        # Patches of `Producer.publish`, such as Sentry's, look for the trace that the sender belongs to.
        self._context = contextvars.copy_context()

    def publish(self) -> None:
        """Publishes it, and blocks as kombu does."""
        self._context.copy().run(self._publish)

    def _publish(self) -> None:
        with self._app.producer_or_acquire() as producer:
            producer.publish(self._body, **self._arguments)

    def start(self, timeout: float | None = None) -> CeleryReceipt:
        """Has it published within ``timeout`` seconds, ``publish_timeout`` if None."""
        receipt = CeleryReceipt(settings.get().publish_timeout if timeout is None else timeout)
        _threads.put(_Job(self.publish, receipt.settle, receipt.begin))
        return receipt

    def confirm(self) -> None:
        """Has it published, and waits for that until the deadline.

        Raises:
            SignalNotSent: It was not published.
        """
        error = self.start().wait()
        if error is not None:
            raise error

    def try_buffer(self) -> None:
        """Has it published in the background.

        Raises:
            SignalNotSent: As many as ``buffer_size`` wait.
        """
        limit = settings.get().buffer_size
        if _threads.waiting >= limit:
            raise SignalNotSent(f"the buffer of {limit} background signals is full", "buffer_full")
        _threads.put(_Job(self.publish, self._report))

    def publish_event(self) -> None:
        """Has it published, or not: nobody waits for an event, and nobody is told."""
        if _threads.waiting < _MOST_EVENTS:
            _threads.put(_Job(self.publish, _ignore))

    def _report(self, error: BaseException | None) -> None:
        if error is not None:
            failure_reports.report(None, self.id, error)


class CeleryReceipt:
    """The promise of an outcome for one message, kept by its deadline. As the core's ``Receipt``.

    Attributes:
        timeout: How long the message may take, in seconds.
    """

    __slots__ = ("_begun", "_callbacks", "_deadline", "_lock", "_outcome", "_settled", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._callbacks: list[Callable[[BaseException | None], None]] = []
        self._outcome: BaseException | None = None
        self._begun = False

    def begin(self) -> bool:
        """Whether there is still time to publish it."""
        self._begun = time.monotonic() < self._deadline and not self._settled.is_set()
        if not self._begun:
            self.settle(self._too_late())
        return self._begun

    def settle(self, error: BaseException | None) -> None:
        """Says what became of the message. The first word counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._outcome = error
            self._settled.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(error)

    def wait(self) -> BaseException | None:
        """Waits for the outcome, until the deadline at most; returns what went wrong."""
        if not self._settled.wait(max(0.0, self._deadline - time.monotonic())):
            self.settle(self._too_late())
        return self._outcome

    def on_settled(self, callback: Callable[[BaseException | None], None]) -> None:
        """Calls back with what went wrong, or None. Past the deadline nobody may call: who waits has one of its own."""
        with self._lock:
            if not self._settled.is_set():
                self._callbacks.append(callback)
                return
        callback(self._outcome)

    def _too_late(self) -> SignalNotSent:
        return SignalNotSent(
            f"Celery's own producer has not published it within {self.timeout:g} s",
            "deadline",
            may_have_arrived=self._begun,
        )


class _Job:
    __slots__ = ("begin", "publish", "settle")

    def __init__(
        self,
        publish: Callable[[], None],
        settle: Callable[[BaseException | None], None],
        begin: Callable[[], bool] = lambda: True,
    ) -> None:
        self.publish = publish
        self.settle = settle
        self.begin = begin


class _Threads:
    """As many threads as there is work for, up to ``MOST_THREADS``. They take their jobs in order."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._condition = threading.Condition()
        self._threads = self._idle = 0
        #: How many are under way.
        self._running = 0

    @property
    def waiting(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs) + self._running

    def put(self, job: _Job) -> None:
        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
            elif self._threads < MOST_THREADS:
                self._threads += 1
                # A daemon: a broker that never answers must not keep the process from ending.
                threading.Thread(target=self._run, name="async-signals-celery-producer", daemon=True).start()

    def flush(self, timeout: float) -> bool:
        """Waits until all that is there now has ended; says whether it has."""
        with self._condition:
            return self._condition.wait_for(lambda: not self.waiting, timeout)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                there = self._condition.wait_for(lambda: self._jobs, _IDLE)
                self._idle -= 1
                if not there:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
                self._running += 1
            try:
                job.settle(_publish(job))
            except Exception:
                logger.exception("What became of a message could not be said")
            finally:
                with self._condition:
                    self._running -= 1
                    self._condition.notify_all()


def _publish(job: _Job) -> BaseException | None:
    try:
        if job.begin():
            job.publish()
    except SignalNotSent as error:
        return error
    except OperationalError as error:
        return _chained(SignalNotSent(f"Celery could not publish it: {error}", "celery"), error)
    except BaseException as error:  # whatever a transport or a patch of it raises ends one send, not the thread
        return error
    return None


def _chained(error: SignalNotSent, cause: BaseException) -> SignalNotSent:
    error.__cause__ = cause
    return error


def _ignore(error: BaseException | None) -> None:
    if error is not None:
        logger.debug("A task-sent event was not published: %s", error)


_threads = _Threads()


def flush(timeout: float) -> None:
    """Waits until all that was sent before is published.

    Raises:
        SignalNotSent: Some is not, after ``timeout`` seconds.
    """
    if _threads.waiting and not _threads.flush(timeout):
        raise SignalNotSent(f"{_threads.waiting} signals wait for Celery's own producer", "deadline", True)


def waiting() -> int:
    """How many messages are not published yet."""
    return _threads.waiting


def after_fork_in_child() -> None:
    """Leaves the threads, and what waits for them, to the parent."""
    global _threads
    _threads = _Threads()
