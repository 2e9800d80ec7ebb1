"""How the parent of a worker knows what its processes are doing: it asks, and they answer.

One pipe for each process, JSON both ways. A process that is too busy to answer
is left out; monitors then see what the others say.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol, cast

from celery import Celery
from celery.worker import state

from async_signals import pauses
from async_signals.routing import TASK

from .events import Events
from .job import Job

logger = logging.getLogger("async_signals")

#: How long a process waits until it knows what its parent has told it while it started, in seconds: at most.
_UP_TO_DATE = 2.0
#: What one process says: how many tasks of which name it has begun, and which are under way.
Report = dict[str, Any]


class Counting(Protocol):
    """What a process's worker knows of its own work."""

    @property
    def begun(self) -> int:
        """How many messages were begun."""

    def running(self) -> Iterable[tuple[Job, float]]:
        """What runs just now, and since when, in seconds since 1970."""


class Reports:
    """The parent's ends of the pipes. Any thread may ask, one at a time."""

    def __init__(self) -> None:
        self._ends: dict[int, Connection] = {}
        #: Those that have not answered their last question.
        self._owing: set[int] = set()
        #: What each was told last of what is paused.
        self._paused: dict[int, bytes] = {}
        self._begun: Counter[str] = Counter()
        self._last: dict[int, Report] = {}
        self._lock = threading.Lock()

    def open(self) -> tuple[int, Connection]:
        """A pipe for a process that is about to be started.

        Returns:
            The number to `close` it by, and the process's end, which the
            parent closes once the process has it.
        """
        ours, theirs = Pipe()
        with self._lock:
            number = ours.fileno()
            self._ends[number] = ours
        return number, theirs

    def close(self, number: int) -> None:
        """The process is gone. What it had begun still counts."""
        with self._lock:
            self._begun.update(self._last.pop(number, {}).get("begun", {}))
            self._owing.discard(number)
            self._paused.pop(number, None)
            self._ends.pop(number).close()

    def abandon(self) -> None:
        """In a process that was forked: the ends are the parent's."""
        for end in self._ends.values():
            end.close()
        self._ends = {}

    def ask(self, question: dict[str, Any], timeout: float = 0.3) -> list[Report]:
        """Asks all processes, and returns what each has said last.

        Arguments:
            question: What they are to know: `clock`, Celery's logical clock; `events`, whether task events are wanted.
            timeout: How long to wait for answers, in seconds.
        """
        with self._lock:
            # One that has not answered yet is not asked again: its pipe would fill up, and then we would wait.
            for number in self._ends.keys() - self._owing:
                with suppress(OSError):
                    self._ends[number].send_bytes(json.dumps(question).encode())
                    self._owing.add(number)
            missing = {self._ends[number]: number for number in self._owing}
            deadline = time.monotonic() + timeout
            while missing and (ready := wait(missing, max(0.0, deadline - time.monotonic()))):
                for end in ready:
                    number = missing.pop(cast(Connection, end))
                    with suppress(OSError, EOFError):
                        self._last[number] = json.loads(self._ends[number].recv_bytes())
                        self._owing.discard(number)
            return list(self._last.values())

    def tell_paused(self, paused: pauses.Paused) -> None:
        """Tells each process what is paused, unless that is what it was told last. It does not answer."""
        told = json.dumps({"signals": sorted(paused.signals), "queues": sorted(paused.queues)}).encode()
        with self._lock:
            for number, end in self._ends.items():
                # One that reads nothing just now hears it the next time.
                if self._paused.get(number) != told and select.select([], [end], [], 0)[1]:
                    with suppress(OSError):
                        end.send_bytes(told)
                        self._paused[number] = told

    def begun(self) -> Counter[str]:
        """How many tasks of which name were begun, as of the last answers."""
        with self._lock:
            total = Counter(self._begun)
            for report in self._last.values():
                total.update(report["begun"])
            return total


class Answers:
    """A process's end: a thread that answers the parent.

    Arguments:
        connection: Its end of the pipe.
        app: The Celery app.
        hostname: The worker's name.
        events: Told when monitors want task events, or no more.
        worker: The native worker, which counts what it hands out.
    """

    def __init__(
        self,
        connection: Connection,
        app: Celery,
        hostname: str,
        events: Events,
        worker: Counting,
    ) -> None:
        self._connection = connection
        self._app = app
        self._hostname = hostname
        self._events = events
        self._worker = worker
        self._is_up_to_date = threading.Event()

    def start(self) -> None:
        """Answers from now on, until the parent is gone. Returns when it knows what was asked and told so far."""
        threading.Thread(target=self._run, name="async-signals-answers", daemon=True).start()
        self._is_up_to_date.wait(_UP_TO_DATE)

    def _run(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                if not self._connection.poll():
                    self._is_up_to_date.set()
                question = json.loads(self._connection.recv_bytes())
                if "queues" in question:
                    pauses.tell(pauses.Paused(frozenset(question["signals"]), frozenset(question["queues"])))
                    continue
                self._events.wanted = question["events"]
                self._app.clock.adjust(question["clock"])
                answer = {"pid": os.getpid(), **self._report()}
                self._connection.send_bytes(json.dumps(answer, default=repr).encode())

    def _report(self) -> Report:
        # Celery's requests keep books of their own; what is not in them are signals that went the short way.
        begun = Counter(state.total_count)
        begun[TASK] += max(0, self._worker.begun - begun.total())
        requests = {request.id: request.info(safe=True) for request in _all(state.active_requests)}
        signals = [self._info(job, since) for job, since in self._worker.running() if job.id not in requests]
        return {"begun": +begun, "running": [*requests.values(), *signals], "clock": self._app.clock.value}

    def _info(self, job: Job, since: float) -> dict[str, Any]:
        """As Celery's requests tell of themselves."""
        headers = job.headers
        return {
            "id": job.id,
            "name": job.task,
            "args": headers.get("argsrepr", ""),
            "kwargs": headers.get("kwargsrepr", ""),
            "type": job.task,
            "hostname": self._hostname,
            "time_start": since,
            "acknowledged": False,
            "delivery_info": {
                "exchange": job.exchange,
                "routing_key": job.routing_key,
                "priority": job.properties.get("priority"),
                "redelivered": job.redelivered,
            },
            "worker_pid": os.getpid(),
        }


def _all(requests: Iterable[Any]) -> list[Any]:
    """What is in a set that other threads change meanwhile."""
    while True:
        with suppress(RuntimeError):  # it has changed its size: once more
            return list(requests)
