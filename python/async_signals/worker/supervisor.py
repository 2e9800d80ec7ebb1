"""The parent of a worker's processes: starts them, replaces what ends, and tells them to stop."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import selectors
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from async_signals._native import LEFT_RUNNING

from .brake import Brake
from .child import REFUSED, Child, Plan, leave
from .reports import Reports

logger = logging.getLogger("async_signals.worker")

#: How much longer than they are given processes may take to end, before they are killed, in seconds.
_GRACE = 5.0
#: A signal that comes again within so many seconds is the same one, sent to the program and to its group.
_ECHO = 0.5
#: How many processes in a row may die before one has reached the broker.
_FALSE_STARTS = 3


class _Process:
    """One process, seen from its parent."""

    def __init__(self, pid: int, control: int, status: int, report: int) -> None:
        self.pid = pid
        self.control = control
        self.status = status
        self.report = report
        self.since = time.monotonic()
        self.connected = False
        #: Whether it was told to end.
        self.told = False
        self.refused: str | None = None
        self._rest = b""

    def hear(self) -> None:
        """Takes in what it says, as far as it has said it."""
        with suppress(BlockingIOError):
            while said := os.read(self.status, 4096):
                *lines, self._rest = (self._rest + said).split(b"\n")
                for line in lines:
                    what = json.loads(line)
                    self.connected = self.connected or "connected" in what
                    self.refused = what.get("refused", self.refused)

    def say(self, word: bytes) -> None:
        self.told = True
        with suppress(OSError):  # it has ended
            os.write(self.control, word)

    def close(self) -> None:
        os.close(self.control)
        os.close(self.status)


class _Slot:
    """The place of one process: whoever is in it, and whoever comes after."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: _Process | None = None
        self.brake = Brake()


class Supervisor:
    """Keeps a worker's processes running.

    The first process reaches the broker before the others are started: what is
    wrong with the broker is then said once.

    Arguments:
        plan: What each process is made of.
        reports: Where processes tell what they do.

    Attributes:
        on_ready: Called when all processes read their queues for the first time.
        on_stopping: Called with the reason's name, `Warm` or `Cold`, and the exit code, when it begins to stop.
    """

    def __init__(self, plan: Plan, reports: Reports) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.on_stopping: Callable[[str, str, int], None] = lambda _signal, _how, _code: None
        self._plan = plan
        #: The names of queues that are paused, and the queues that are read.
        self._paused: frozenset[str] = frozenset()
        self._queues = plan.queues
        self._reports = reports
        self._slots = [_Slot(number + 1) for number in range(plan.options.concurrency)]
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = os.pipe()
        #: Signals that came and were not obeyed yet.
        self._came: list[signal.Signals] = []
        self._proven = self._is_ready = self._stopping = False
        self._false_starts = 0
        #: What told it to stop last, and when.
        self._told: tuple[signal.Signals | None, float] = (None, 0.0)
        #: When what is left is killed.
        self._deadline: float | None = None
        self._exit_code = 0

    # What remote control asks of it, from another thread.

    def info(self) -> dict[str, Any]:
        """What `celery inspect stats` shows of the processes."""
        options = self._plan.options
        return {
            "implementation": "async_signals.worker",
            "max-concurrency": options.concurrency * options.threads,
            "processes": [process.pid for process in self._processes()],
            "threads": options.threads,
            "max-tasks-per-child": options.max_tasks_per_child or "N/A",
            "timeouts": (options.soft_time_limit or 0, options.time_limit or 0),
        }

    def stop(self) -> None:
        """Begins to stop, as at a SIGTERM."""
        self._came.append(signal.SIGTERM)
        self._wake()

    def pause(self, queues: frozenset[str]) -> None:
        """Has these queues of the worker's wait, and only these, from now on."""
        if queues != self._paused:
            self._paused = queues
            self._wake()

    # Its own life, in the main thread.

    def run(self) -> int:
        """Until it is stopped and all processes are gone. Returns the exit code."""
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        with self._signals():
            while True:
                self._change_queues()
                self._start_missing()
                if self._stopping and not self._processes():
                    return self._exit_code
                self._wait()
                self._reap()
                self._obey()
                self._greet()

    def _start_missing(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        for slot in self._startable():
            if slot.process is None and slot.brake.is_free(now):
                slot.process = self._fork(slot.number)

    def _startable(self) -> list[_Slot]:
        """The places that are to have a process: none where nothing is read, one until it has reached the broker."""
        return [] if not self._queues else self._slots if self._proven else self._slots[:1]

    def _fork(self, number: int) -> _Process:
        hears, control = os.pipe()
        status, tells = os.pipe()
        report, answers = self._reports.open()
        with warnings.catch_warnings():
            # The thread that talks to monitors; the child makes anew what it may have held.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._let_go(control, status)
                plan = dataclasses.replace(self._plan, queues=self._queues)
                code = Child(plan, number, hears, tells, answers, not self._proven).run()
            except BaseException:
                logger.exception("A process could not be started")
            finally:
                leave(code)
        os.close(hears)
        os.close(tells)
        answers.close()
        os.set_blocking(status, False)
        self._selector.register(status, selectors.EVENT_READ)
        return _Process(pid, control, status, report)

    def _let_go(self, control: int, status: int) -> None:
        """In a new process: it must not keep the parent's ends of pipes, which are to end with the parent."""
        self._selector.close()
        for descriptor in (control, status, self._woken, self._waker):
            os.close(descriptor)
        for process in self._processes():
            process.close()
        self._reports.abandon()

    def _unpaused_queues(self) -> list[dict[str, Any]]:
        return [queue for queue in self._plan.queues if queue["name"] not in self._paused]

    def _change_queues(self) -> None:
        """Replaces the processes when queues were paused or resumed; what they have begun ends first."""
        queues = self._unpaused_queues()
        if queues == self._queues or self._stopping:
            return
        before, after = ({queue["name"] for queue in found} for found in (self._queues, queues))
        self._queues = queues
        for name in sorted(before - after):
            logger.warning("Queue %s is paused: its messages stay in it", name)
        for name in sorted(after - before):
            logger.warning("Queue %s is resumed", name)
        for process in self._processes():
            process.say(b"d")

    def _wait(self) -> None:
        startable = [] if self._stopping else self._startable()
        moments = [slot.brake.free_at for slot in startable if slot.process is None]
        if self._deadline is not None:
            moments.append(self._deadline)
        patience = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self._selector.select(patience):
            if key.fd == self._woken:
                with suppress(BlockingIOError):
                    while os.read(self._woken, 512):
                        pass
        for process in self._processes():
            process.hear()
        if self._deadline is not None and time.monotonic() >= self._deadline:
            for process in self._processes():
                logger.error("Process %d does not end, and is killed", process.pid)
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._exit_code, self._deadline = 1, None

    def _reap(self) -> None:
        for slot in self._slots:
            process = slot.process
            if process is None:
                continue
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid == 0:
                continue
            process.hear()
            self._selector.unregister(process.status)
            self._reports.close(process.report)
            process.close()
            slot.process = None
            self._ended(slot, process, os.waitstatus_to_exitcode(status))

    def _ended(self, slot: _Slot, process: _Process, code: int) -> None:
        self._proven = self._proven or process.connected
        if self._stopping:
            if code:
                logger.warning("Process %d %s", process.pid, _end(code))
                self._exit_code = 1
            return
        if process.refused is not None:
            logger.critical("The broker will not have this worker: %s", process.refused)
        elif code:
            logger.error("Process %d %s; another one takes its place", process.pid, _end(code))
        else:
            logger.info("Process %d has done its part; another one takes its place", process.pid)
        if not self._proven:
            self._false_starts += 1
            if process.refused is not None or self._false_starts >= _FALSE_STARTS:
                self._begin_to_stop("none", "Cold", b"q", 1)
                return
        if code == 0:
            slot.brake.release()
        else:
            slot.brake.press(time.monotonic() - process.since)

    def _greet(self) -> None:
        """Takes note of processes that have reached the broker."""
        processes = self._processes()
        self._proven = self._proven or any(process.connected for process in processes)
        if self._is_ready or self._stopping:
            return
        are_all_there = len(processes) == len(self._slots) and all(process.connected for process in processes)
        if are_all_there or not self._queues:  # all of them are paused
            self._is_ready = True
            self.on_ready()

    def _obey(self) -> None:
        while self._came:
            came, now = self._came.pop(0), time.monotonic()
            if came == signal.SIGHUP:
                logger.warning("SIGHUP: the processes are replaced")
                for process in self._processes():
                    process.say(b"t")
                continue
            (last, at), self._told = self._told, (came, now)
            if came == last and now - at < _ECHO:
                continue
            if self._stopping or came == signal.SIGQUIT:
                logger.warning("%s: stopping at once; what is not finished goes back into its queue", came.name)
                self._begin_to_stop(came.name, "Cold", b"q", 1)
            else:
                logger.warning("%s: stopping when what has begun is done", came.name)
                self._begin_to_stop(came.name, "Warm", b"t", 0)

    def _begin_to_stop(self, reason: str, how: str, word: bytes, code: int) -> None:
        if not self._stopping:
            self.on_stopping(reason, how, code)
        self._stopping = True
        self._exit_code = max(self._exit_code, code)
        for process in self._processes():
            process.say(word)
        patience = self._plan.options.stop_timeout if how == "Warm" else 0.0
        self._deadline = time.monotonic() + patience + _GRACE

    def _processes(self) -> list[_Process]:
        return [slot.process for slot in self._slots if slot.process is not None]

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._waker, b"!")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            if number != signal.SIGCHLD:
                self._came.append(signal.Signals(number))

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, note) for number in numbers}
        waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)


def _end(code: int) -> str:
    """An exit code in words."""
    if code == LEFT_RUNNING:
        return "has ended with a receiver that did not"
    if code == REFUSED:
        return "was refused by the broker"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"has died with exit code {code}"
