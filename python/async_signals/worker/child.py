"""One process of a worker: threads that run receivers, around the native worker."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import billiard
from asgiref.sync import async_to_sync, sync_to_async
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from async_signals import follow_ups, pauses, settings
from async_signals._native import Worker
from async_signals.errors import SignalNotSent
from async_signals.publishing import embedded
from async_signals.routing import TASK

from .celery_tasks import CeleryTasks
from .connections import RECEIVING, Connections, forget_inherited
from .events import Events
from .lifecycle import Lifecycle
from .observer import Observer
from .options import Options
from .receive import Receiver
from .reports import Answers

logger = logging.getLogger("async_signals.worker")

#: The exit code of a process that the broker does not want, however often it tries.
REFUSED = 72
#: Messages that are taken ahead of fast receivers, in one process.
_MOST_PREFETCH = 512


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all processes of a worker are made of.

    Attributes:
        app: The Celery app.
        options: The worker's.
        lifecycle: Celery's signals about the worker.
        broker: How to reach the broker, in the core's words.
        queues: What is read, in the core's words.
    """

    app: Celery
    options: Options
    lifecycle: Lifecycle
    broker: dict[str, Any]
    queues: list[dict[str, Any]]


class Child:
    """One process, seen from its inside.

    Arguments:
        plan: The worker's.
        number: Which of its processes this is, from 1.
        control: A descriptor to which the parent writes `t` (finish), `d` (finish, however long that takes) or `q`
            (end at once), and which ends with it.
        status: A descriptor that the parent reads.
        answers: The process's end of the pipe of `Reports`.
        is_first: Whether no process of the worker has reached the broker so far.
    """

    def __init__(self, plan: Plan, number: int, control: int, status: int, answers: Connection, is_first: bool) -> None:
        self._plan = plan
        self._number = number
        self._control = control
        self._status = status
        self._answers = answers
        self._is_first = is_first
        self._trouble: BaseException | None = None

    def run(self) -> int:
        """Until it is told to end, or has run as many messages as it may. Returns the exit code."""
        plan = self._plan
        # Logs ask the one, what was written for Celery the other.
        multiprocessing.current_process().name = billiard.current_process().name = f"Worker-{self._number}"
        _ignore_signals()
        forget_inherited()
        plan.lifecycle.enter_process()
        embedded.share(plan.app, plan.broker["urls"])
        events = Events(plan.app, plan.options.hostname, plan.options.task_events)
        worker = self._worker()
        tasks = CeleryTasks(plan.app, plan.options.hostname, events, _Limits(worker).held)
        receiver = Receiver(tasks, events, Connections(plan.app))
        _take_signals(worker)
        Answers(self._answers, plan.app, plan.options.hostname, events, worker).start()
        try:
            return self._run(worker, receiver)
        finally:
            events.close()
            plan.lifecycle.leave_process(os.getpid())

    def _run(self, worker: Worker, receiver: Receiver) -> int:
        worker.start()
        threads = [
            threading.Thread(target=self._run_beside_loop, args=(worker, receiver), name=f"{RECEIVING}{number}")
            for number in range(2, self._plan.options.threads + 1)
        ]
        for thread in threads:
            thread.start()
        self._run_beside_loop(worker, receiver, main=True)
        try:
            worker.join()
        except SignalNotSent as error:
            self._tell(refused=str(error))
            return REFUSED
        if self._trouble is not None:
            logger.error("A receiver ended its process: %r", self._trouble, exc_info=self._trouble)
            return 1
        return 0

    def _run_beside_loop(self, worker: Worker, receiver: Receiver, main: bool = False) -> None:
        # The calling thread runs receivers; an event loop waits beside it for as long, in a thread of its own.
        # Every async_to_sync below then finds that loop, and need not make one for each message; and what
        # coroutines ask the database is asked in the calling thread, over the connection that it has.
        async_to_sync(sync_to_async(self._run_thread))(worker, receiver, main)

    def _run_thread(self, worker: Worker, receiver: Receiver, main: bool) -> None:
        try:
            worker.run(receiver, main)
        except BaseException as error:
            # The native worker is on its way out already.
            self._trouble = error

    def _worker(self) -> Worker:
        options, ours = self._plan.options, settings.get()
        heartbeat = self._plan.app.connection_for_read().heartbeat
        return Worker(
            **self._plan.broker,
            queues=self._plan.queues,
            name=f"{re.sub('[^A-Za-z0-9]+', '-', options.hostname)}-{uuid.uuid4().hex[:12]}",
            tasks=set(self._plan.app.tasks) - {TASK},
            observer=Observer(lambda broker: self._tell(connected=broker)),
            interrupt=_interrupt,
            timeout=float(ours.publish_timeout),
            stop_timeout=options.stop_timeout,
            least_prefetch=options.prefetch,
            most_prefetch=max(_MOST_PREFETCH, options.prefetch),
            max_deliveries=int(ours.max_deliveries),
            paused_queue=pauses.queue_aside(self._plan.app),
            dead_letters=ours.dead_letters if isinstance(ours.dead_letters, str) else None,
            dead_letter_arguments=follow_ups.bounds(ours),
            startup_rounds=options.startup_rounds if self._is_first else None,
            heartbeat=float(heartbeat) if heartbeat else None,
            soft_time_limit=options.soft_time_limit,
            time_limit=options.time_limit,
            max_messages=options.max_tasks_per_child,
            control=self._control,
        )

    def _tell(self, **what: str) -> None:
        with suppress(OSError):  # the parent is gone, and with it whoever would want to know
            os.write(self._status, json.dumps(what).encode() + b"\n")


class _Limits:
    """Celery's tasks have limits of their own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @contextmanager
    def held(self, soft: float | None, hard: float | None) -> Iterator[None]:
        self._worker.limit(soft, hard)
        try:
            yield
        finally:
            self._worker.unlimit()


def _ignore_signals() -> None:
    # A terminal sends these to all of its processes; what they ask for, the parent says.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def _take_signals(worker: Worker) -> None:
    def finish(_number: int, _frame: FrameType | None) -> None:
        worker.stop()

    def overdue(_number: int, _frame: FrameType | None) -> None:
        if worker.take_overdue():
            raise SoftTimeLimitExceeded

    signal.signal(signal.SIGTERM, finish)
    # As in a pool process of Celery's: a signal also ends a wait within a system call.
    signal.signal(signal.SIGUSR1, overdue)


def _interrupt(ident: int) -> bool:
    if ident != threading.main_thread().ident:
        return False
    signal.pthread_kill(ident, signal.SIGUSR1)
    return True


def leave(code: int) -> None:
    """Ends a forked process, past whatever its parent would do at its own end."""
    logging.shutdown()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)
