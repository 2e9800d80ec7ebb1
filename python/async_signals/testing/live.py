"""``live_worker()``: a broker and a worker in the test's own process, for the whole way of a signal."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from async_signals import (
    _native,
    follow_ups,
    pauses,
    propagation,
    publishing,
    routing,
    settings,
    transactions,
)
from async_signals.errors import DeadLettered
from async_signals.inspection.routes import named_queues
from async_signals.routing import TASK, NotNative

from .counting import MessageCounter
from .differences import name_of
from .pointing import find_app, pointed_at

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.delivery import Delivery, LazyDelivery
    from async_signals.dispatcher import AsyncSignal
    from async_signals.failures import Failure
    from async_signals.worker.receive import Receiver

logger = logging.getLogger("async_signals.testing")

#: How long a worker may take to read its queues, and to end when nothing runs, in seconds.
_PATIENCE = 10.0
#: How long the worker itself would wait for receivers, in seconds: for ever. It ends its process when they take longer.
_FOR_EVER = 365 * 24 * 3600.0
#: Between two looks into the queues, in seconds.
_PAUSE = 0.01
#: After how many looks at a stopping worker that runs nothing it is ended.
_QUIET = 5
#: Messages that are taken ahead of fast receivers.
_MOST_PREFETCH = 64


@dataclasses.dataclass(frozen=True)
class LiveDeadLetter:
    """A message that the worker has put into a dead-letter queue.

    Attributes:
        id: The task's id.
        queue: The dead-letter queue; None: the settings have none, and it is dropped.
        kind: Why, as a word: ``ReceiversFailed``, ``MissingRow``, …
        reason: Why, in a sentence.
    """

    id: str
    queue: str | None
    kind: str
    reason: str


class LiveWorker:
    """A worker of ours that runs in threads of this process, on a broker of its own.

    Attributes:
        errors: What receivers raised and are not tried again for, and a ``DeadLettered`` for each message that could
            not be run at all.
        dead_letters: What has become a dead letter.
    """

    def __init__(self, app: Celery, counter: MessageCounter, read: list[Any], threads: int) -> None:
        self._app = app
        self._queues = [queue.name for queue in read]
        self.errors: list[Exception] = []
        self.dead_letters: list[LiveDeadLetter] = []
        #: By message, what it waits for.
        self._later: dict[str, str] = {}
        self._connected = threading.Event()
        self._raised = 0
        self._trouble: BaseException | None = None
        self._counter = counter
        self._worker = self._make(read)
        self._receiver = self._make_receiver()
        self._threads = [
            threading.Thread(target=self._run, name=f"async-signals-live-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]

    def wait(self, timeout: float = 10.0, *, reraise: bool = True) -> None:
        """Waits until all queues are empty and nothing runs, also what receivers have sent and what is tried again.

        Arguments:
            timeout: For how long, in seconds.
            reraise: Whether what has come to ``errors`` since the last time is raised here.

        Raises:
            AssertionError: Something is left by then, or lies in a queue that this worker does not read.
            ExceptionGroup: Several receivers failed. A single one's own error is raised as it is.
        """
        __tracebackhide__ = True
        give_up = time.monotonic() + timeout
        while not self._is_idle():
            if self._trouble is not None:
                raise AssertionError(f"the worker has ended: {self._trouble!r}") from self._trouble
            if time.monotonic() >= give_up:
                raise AssertionError(f"after {timeout:g} s {self._left()}")
            time.sleep(_PAUSE)
        unread = {queue: number for queue, number in self._counter.count().items() if not self._is_known(queue)}
        if unread:
            told = ", ".join(f"{queue!r} ({number})" for queue, number in sorted(unread.items()))
            raise AssertionError(
                f"messages lie in queues that this worker does not read: {told}; name them in live_worker(queues=…), "
                f"or override the fixture"
            )
        errors, self._raised = self.errors[self._raised :], len(self.errors)
        if transactions.in_testcase():
            for error in errors:
                error.add_note(
                    "this test has a transaction open that is never committed, so that no other thread sees what it "
                    "has written: use a TransactionTestCase, or pytest.mark.django_db(transaction=True)"
                )
        if reraise and len(errors) == 1:
            raise errors[0]
        if reraise and errors:
            raise ExceptionGroup(f"{len(errors)} receivers failed", errors)

    def start(self) -> None:
        """Returns when it reads its queues."""
        self._worker.start()
        for thread in self._threads:
            thread.start()
        if not self._connected.wait(_PATIENCE):
            raise RuntimeError(f"the worker did not reach its broker in {_PATIENCE:g} s")

    def stop(self) -> None:
        """Ends it, when what runs is done.

        Raises:
            RuntimeError: A receiver does not end. Its thread is left behind.
        """
        self._worker.stop(_FOR_EVER)
        give_up = time.monotonic() + _PATIENCE
        quiet, begun = 0, -1
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < give_up:
            quiet = 0 if self._worker.running() or self._worker.begun != begun else quiet + 1
            begun = self._worker.begun
            if quiet == _QUIET:
                # Nothing runs, and what waits for its time need not be waited for. Not before: the end of a worker
                # is that of its process, if a receiver does not come back in a second.
                self._worker.stop_now()
            time.sleep(_PAUSE)
        if any(thread.is_alive() for thread in self._threads):
            raise RuntimeError(f"a receiver does not end, and its thread is left behind: {self._running()}")
        self._worker.join()

    def _make(self, read: list[Any]) -> _native.Worker:
        from async_signals.publishing.broker import broker_options

        ours = settings.get()
        return _native.Worker(
            **broker_options(self._app),
            queues=routing.route("", "", read)["declare"],
            name=f"live-{uuid.uuid4().hex[:12]}",
            tasks=set(self._app.tasks) - {TASK},
            observer=_observer(self),
            interrupt=lambda _ident: False,
            timeout=float(ours.publish_timeout),
            stop_timeout=_FOR_EVER,
            least_prefetch=1,
            most_prefetch=_MOST_PREFETCH,
            max_deliveries=int(ours.max_deliveries),
            paused_queue=pauses.queue_aside(self._app),
            dead_letters=ours.dead_letters if isinstance(ours.dead_letters, str) else None,
            dead_letter_arguments=follow_ups.bounds(ours),
        )

    def _make_receiver(self) -> Receiver:
        from async_signals.worker.celery_tasks import CeleryTasks
        from async_signals.worker.connections import Connections
        from async_signals.worker.events import Events
        from async_signals.worker.receive import Receiver

        hostname = "live@localhost"
        events = Events(self._app, hostname)
        self._connections = Connections(self._app)
        return Receiver(CeleryTasks(self._app, hostname, events), events, self._connections)

    def _run(self) -> None:
        from asgiref.sync import async_to_sync, sync_to_async

        # As in a worker's process: coroutines are awaited in a loop beside this thread, and ask the database in it.
        async_to_sync(sync_to_async(self._run_receivers))()

    def _run_receivers(self) -> None:
        try:
            self._worker.run(self._receiver)
        except BaseException as error:
            self._trouble = error
        finally:
            from async_signals.worker.connections import close_all

            close_all()

    # Told by receivers' threads.

    def failed(self, signal: AsyncSignal, delivery: Delivery | LazyDelivery, failure: Failure, again: bool) -> None:
        """A receiver has failed."""
        if again or failure.error is None:
            return
        tries = "" if delivery.attempt == 1 else f" in try {delivery.attempt}, the last one"
        failure.error.add_note(f"raised by receiver {failure.receiver} of {name_of(signal)}[{delivery.id}]{tries}")
        self.errors.append(failure.error)

    # How much is left.

    def _is_idle(self) -> bool:
        publishing.flush(_PATIENCE)
        begun = self._worker.begun
        # A receiver may have sent in the background and ended between the first look and the second.
        if self._waiting() or publishing.buffered() or self._waiting():
            return False
        # What it tells comes by a thread of its own.
        dead = self._count_of(map(settings.get().dead_letter_queue, self._queues))
        return not self._worker.running() and self._worker.begun == begun and dead <= len(self.dead_letters)

    def _waiting(self) -> int:
        return self._count_of(self._queues)

    def _count_of(self, queues: Iterable[str | None]) -> int:
        counts = self._counter.count()
        return sum(counts.get(queue, 0) for queue in dict.fromkeys(queues) if queue is not None)

    def _is_known(self, queue: str) -> bool:
        dead = map(settings.get().dead_letter_queue, self._queues)
        return queue in self._queues or queue in dead

    def _left(self) -> str:
        counts = sorted(self._counter.count().items())
        waiting = ", ".join(f"{number} in {queue!r}" for queue, number in counts if queue in self._queues)
        told = [f"messages are left: {waiting or 'none'}"]
        if running := self._running():
            told.append(f"receivers run for {running}")
        told += list(self._later.values())[-10:]
        return "; ".join(told)

    def _running(self) -> str:
        return ", ".join(f"{job.task}[{job.id}]" for job, _ in self._worker.running())


def _observer(live: LiveWorker) -> Any:
    from async_signals.worker.observer import Observer

    # The core keeps its observer for as long as the process lives.
    later, dead_letters, errors, connected = live._later, live.dead_letters, live.errors, live._connected

    class LiveObserver(Observer):
        """Tells the log, as in any worker, and the test."""

        def delayed(self, id: str, task: str, seconds: float) -> None:
            super().delayed(id, task, seconds)
            later[id] = f"message {id} waits {seconds:.1f} s for its time"

        def retried(self, id: str, receivers: list[str], seconds: float) -> None:
            super().retried(id, receivers, seconds)
            later[id] = f"{', '.join(receivers)} tried again in {seconds:.1f} s"

        def dead_lettered(self, id: str, queue: str | None, kind: str, reason: str) -> None:
            super().dead_lettered(id, queue, kind, reason)
            later.pop(id, None)
            if kind != "ReceiversFailed":  # those have said so themselves
                errors.append(DeadLettered(f"message {id} could not be run, {kind}: {reason}"))
            dead_letters.append(LiveDeadLetter(id, queue, kind, reason))

    return LiveObserver(lambda _broker: connected.set())


@contextmanager
def live_worker(*, queues: Iterable[str] = (), threads: int = 1) -> Iterator[LiveWorker]:
    """Runs a worker in this process, on a SQLite broker in a temporary folder, and points Celery at it meanwhile.

    All that is real: the message, the broker, the worker's engine, retries with their pauses, dead letters. The
    receivers run in threads of their own, and see what is committed: use it with a ``TransactionTestCase``, or with
    ``@pytest.mark.django_db(transaction=True)``. Other tasks of the app run there too.

    Arguments:
        queues: Queues to read beside those that Celery's settings and the signals name.
        threads: How many receivers may run at a time.

    Raises:
        RuntimeError: There is no Celery app in this process, or SQLAlchemy is not installed, which Celery needs for
            this broker.

    >>> with live_worker() as worker:  # doctest: +SKIP
    ...     order_placed.send(None, order_id=5)
    ...     worker.wait()
    """
    app = find_app()
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="async-signals-"))) / "broker.sqlite3"
        stack.enter_context(pointed_at(app, f"sqla+sqlite:///{path}"))
        counter = MessageCounter(path)
        stack.callback(counter.close)
        worker = _make_worker(app, counter, queues, threads)
        pauses.tell(pauses.Paused())  # what is paused elsewhere runs in a test
        stack.callback(pauses.tell, None)
        propagation.failure_listeners.append(worker.failed)
        stack.callback(propagation.failure_listeners.remove, worker.failed)
        stack.callback(worker._connections.put_back)
        stack.callback(worker.stop)
        worker.start()
        yield worker


def _make_worker(app: Celery, counter: MessageCounter, more: Iterable[str], threads: int) -> LiveWorker:
    # A copy: Celery's own adds what is missing to the queues that it reads.
    known = app.amqp.Queues(app.conf.task_queues, create_missing=True)
    read = [known[name] for name in dict.fromkeys([*named_queues(app), *more])]
    try:
        return LiveWorker(app, counter, read, threads)
    except NotNative as error:
        raise RuntimeError(f"a worker of ours cannot read the queues of this app: {error}") from error
