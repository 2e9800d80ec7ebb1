"""What is said of a signal that was accepted and could not be sent later on: a log line, and ``on_failure``.

``on_failure`` is a user's: it may take long, raise, or never return. It is called on a thread of its own, so that no
send waits for it.
"""

from __future__ import annotations

import _thread
import logging
import sys
import time
from _queue import SimpleQueue  # filled and emptied by native threads, also where gevent has made others green
from collections.abc import Callable
from typing import Any

from django.db import close_old_connections
from django.utils.module_loading import import_string

from async_signals import settings

logger = logging.getLogger("async_signals")

#: How many calls of ``on_failure`` may wait for the one that runs.
MOST_WAITING = 1000
#: How soon to look again whether all calls have returned, in seconds.
_PAUSE = 0.01


class _CallThread:
    """Calls ``on_failure`` on one native thread, which is started by the first call."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Any, str, BaseException]] = SimpleQueue()
        self._started = _thread.allocate_lock()
        self._called = self.accepted = 0
        self._refused = 0

    def call(self, signal: Any, task_id: str, error: BaseException) -> None:
        if self.accepted - self._called > MOST_WAITING:
            self._refused += 1
            if self._refused == 1:
                logger.error("on_failure is too slow: %d calls wait for it, further ones are dropped", MOST_WAITING)
            return
        self._refused = 0
        self.accepted += 1
        self._calls.put((signal, task_id, error))
        if self._started.acquire(blocking=False):
            _start_native_thread(self._run)

    def _run(self) -> None:
        while True:
            signal, task_id, error = self._calls.get()
            try:
                _call(signal, task_id, error)
            finally:
                self._called += 1

    def drain(self, timeout: float) -> None:
        give_up = time.monotonic() + timeout
        while self._called < self.accepted and time.monotonic() < give_up:
            time.sleep(_PAUSE)


_thread_of_calls = _CallThread()


def report(signal: Any, task_id: str, error: BaseException) -> None:
    """Logs that an accepted signal could not be sent, and has ``on_failure`` called."""
    logger.error("Signal %s[%s] was not sent: %s", signal or "", task_id, error)
    if settings.get().on_failure is not None:
        _thread_of_calls.call(signal, task_id, error)


def drain(timeout: float) -> None:
    """Waits until every call of ``on_failure`` has returned.

    Arguments:
        timeout: How long to wait at most, in seconds.
    """
    _thread_of_calls.drain(timeout)


def after_fork_in_child() -> None:
    """Leaves the thread, and what waits for it, to the parent."""
    global _thread_of_calls
    _thread_of_calls = _CallThread()


def _call(signal: Any, task_id: str, error: BaseException) -> None:
    try:
        callback = settings.get().on_failure
        if isinstance(callback, str):
            callback = import_string(callback)
        if callback is not None:
            callback(signal, task_id, error)
    except Exception:
        logger.exception("on_failure failed for signal %s[%s]", signal or "", task_id)
    finally:
        close_old_connections()


def _start_native_thread(run: Callable[[], None]) -> None:
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    start: Any = _thread.start_new_thread
    if gevent is not None:
        start = gevent.get_original("_thread", "start_new_thread")
    elif eventlet is not None:
        start = eventlet.original("_thread").start_new_thread
    start(run, ())
