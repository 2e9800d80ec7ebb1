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
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from async_signals import compat, settings
from async_signals.errors import SignalNotSent

from . import failure_reports

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger("async_signals")

#: How many threads publish for an app at most. A broker that accepts and never answers may hold each of them.
MOST_THREADS = 8
#: For how long a thread that has nothing to do is kept, in seconds.
_IDLE = 10.0


class CeleryMessage:
    """A message that is ready to be published by Celery's own producer.

    Arguments:
        app: The app whose producers publish it.
        task_id: The task's id.
        body: What kombu's ``Producer.publish`` gets first.
        arguments: What it gets beside.
    """

    __slots__ = ("_app", "_arguments", "_body", "_context", "_sender", "id")

    def __init__(self, app: Celery, task_id: str, body: Any, arguments: dict[str, Any]) -> None:
        self.id = task_id
        self._app = app
        self._body = body
        self._arguments = arguments
        # Patches of `Producer.publish`, such as Sentry's, look for the trace that the sender belongs to.
        self._context = contextvars.copy_context()
        self._sender = threading.get_ident()

    def start(self, timeout: float | None = None) -> CeleryReceipt:
        """Has it published within ``timeout`` seconds, ``publish_timeout`` if None.

        Raises:
            SignalNotSent: As many as ``buffer_size`` wait already.
        """
        receipt = CeleryReceipt(settings.get().publish_timeout if timeout is None else timeout)
        self._put(receipt)
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
            SignalNotSent: As many as ``buffer_size`` wait already.
        """
        self._put(_Reported(self.id))

    def publish_event(self) -> None:
        """Has it published, or not: nobody waits for an event, and nobody is told."""
        try:
            self._put(_Ignored())
        except SignalNotSent as error:
            logger.debug("A task-sent event was not published: %s", error)

    def _put(self, outcome: CeleryReceipt | _Reported | _Ignored) -> None:
        _threads_of(self._app).put(_Job(self._publish, outcome, self._sender))

    def _publish(self) -> None:
        self._context.copy().run(self._publish_in_context)

    def _publish_in_context(self) -> None:
        with self._app.producer_or_acquire() as producer:
            producer.publish(self._body, **self._arguments)


class CeleryReceipt:
    """The promise of an outcome for one message. As the core's ``Receipt``, but who waits keeps the deadline.

    Attributes:
        timeout: How long the message may take, in seconds.
    """

    __slots__ = ("_begun", "_callback", "_deadline", "_lock", "_outcome", "_settled", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._callback: Callable[[BaseException | None], None] | None = None
        self._outcome: BaseException | None = None
        self._begun = False

    def is_wanted(self) -> bool:
        """Whether somebody waits for it still."""
        return not self._settled.is_set() and time.monotonic() < self._deadline

    def begin(self) -> None:
        """Notes that the broker may have it from now on."""
        self._begun = True

    def settle(self, error: BaseException | None) -> None:
        """Says what became of the message. The first word counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._outcome = error
            self._settled.set()
            callback = self._callback
        if callback is not None:
            callback(error)

    def wait(self) -> BaseException | None:
        """Waits for the outcome, until the deadline at most; returns what went wrong."""
        if not self._settled.wait(max(0.0, self._deadline - time.monotonic())):
            self.settle(SignalNotSent(f"not published within {self.timeout:g} s", "deadline", self._begun))
        return self._outcome

    def on_settled(self, callback: Callable[[BaseException | None], None]) -> None:
        """Calls back once with what went wrong, or None."""
        with self._lock:
            if not self._settled.is_set():
                self._callback = callback
                return
        callback(self._outcome)


class _Reported:
    """The outcome of a background signal: a failure is reported."""

    def __init__(self, task_id: str) -> None:
        self._id = task_id

    def is_wanted(self) -> bool:
        return True

    def begin(self) -> None:
        """Nobody asks."""

    def settle(self, error: BaseException | None) -> None:
        if error is not None:
            failure_reports.report(None, self._id, error)


class _Ignored(_Reported):
    """The outcome of an event."""

    def __init__(self) -> None:
        super().__init__("")

    def settle(self, error: BaseException | None) -> None:
        if error is not None:
            logger.debug("A task-sent event was not published: %s", error)


class _Job:
    __slots__ = ("outcome", "publish", "sender")

    def __init__(self, publish: Callable[[], None], outcome: CeleryReceipt | _Reported, sender: int) -> None:
        self.publish = publish
        self.outcome = outcome
        self.sender = sender


class _Threads:
    """The threads that publish for one app: as many as there is work for, up to ``MOST_THREADS``.

    What one thread sends is published one after the other, in its order.
    """

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._condition = threading.Condition()
        self._threads = self._idle = 0
        #: The senders of what is being published now.
        self._senders: set[int] = set()

    @property
    def waiting(self) -> int:
        """How many messages are not published yet."""
        return len(self._jobs) + len(self._senders)

    def put(self, job: _Job) -> None:
        limit = settings.get().buffer_size
        with self._condition:
            if len(self._jobs) >= limit:
                # What nobody waits for any more makes room.
                self._jobs = deque(waiting for waiting in self._jobs if waiting.outcome.is_wanted())
            if self.waiting >= limit:
                raise SignalNotSent(f"{limit} signals wait for Celery's own producer already", "buffer_full")
            self._jobs.append(job)
            if self._idle:
                self._condition.notify()
            elif self._threads < MOST_THREADS:
                self._threads += 1
                # A daemon: a broker that never answers must not keep the process from ending.
                threading.Thread(target=self._run, name="async-signals-celery-producer", daemon=True).start()

    def flush(self, timeout: float) -> bool:
        """Waits until all that is there now is published; says whether it is."""
        with self._condition:
            return self._condition.wait_for(lambda: not self.waiting, timeout)

    def _next(self) -> _Job | None:
        """The first job whose sender has none under way."""
        for index, job in enumerate(self._jobs):
            if job.sender not in self._senders:
                del self._jobs[index]
                return job
        return None

    def _run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                job = self._condition.wait_for(self._next, _IDLE)
                self._idle -= 1
                if job is None:
                    self._threads -= 1
                    return
                self._senders.add(job.sender)
            try:
                if job.outcome.is_wanted():
                    job.outcome.begin()
                    job.outcome.settle(_published(job.publish))
            except Exception:
                logger.exception("What became of a message could not be said")
            finally:
                with self._condition:
                    self._senders.discard(job.sender)
                    self._condition.notify_all()


def _published(publish: Callable[[], None]) -> BaseException | None:
    try:
        publish()
    except OperationalError as error:
        failure = SignalNotSent(f"Celery could not publish it: {error}", "celery")
        failure.__cause__ = error
        return failure
    except BaseException as error:  # whatever a transport, or a patch of it, raises ends one send and not the thread
        return error
    return None


#: Pools of the process that this one was forked from.
_inherited: list[object] = []
_lock = threading.Lock()
_threads: weakref.WeakKeyDictionary[Celery, _Threads] = weakref.WeakKeyDictionary()


def _threads_of(app: Celery) -> _Threads:
    with _lock:
        return _threads.setdefault(app, _Threads())


def flush(timeout: float) -> None:
    """Waits until all that was sent before is published.

    Raises:
        SignalNotSent: Some is not, after ``timeout`` seconds.
    """
    give_up = time.monotonic() + timeout
    for threads in list(_threads.values()):
        if not threads.flush(max(0.0, give_up - time.monotonic())):
            raise SignalNotSent(f"{threads.waiting} signals wait for Celery's own producer", "deadline", True)


def waiting() -> int:
    """How many messages are not published yet."""
    return sum(threads.waiting for threads in list(_threads.values()))


def after_fork_in_child() -> None:
    """Leaves threads, connections, and what waits for them, to the parent."""
    global _lock
    _lock = threading.Lock()
    for app in list(_threads):
        _inherited.extend(compat.forget_pools(app))
    _threads.clear()
