"""Publishers, and the processes they belong to: one native publisher for each Celery app of a process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing.util
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from async_signals import _native, settings
from async_signals._native import PreparedMessage, Publisher, Receipt
from async_signals.errors import SignalNotSent
from async_signals.routing import NotNative

from . import failure_reports, green
from .broker import broker_options

if TYPE_CHECKING:
    from celery import Celery

    from .celery_producer import CeleryMessage, CeleryReceipt

    Message = PreparedMessage | CeleryMessage
    AnyReceipt = Receipt | CeleryReceipt

logger = logging.getLogger("async_signals")

#: How soon to look again for room in a full buffer, in seconds.
RETRY_PAUSE = 0.005

_lock = threading.Lock()
#: The process that the publishers belong to. uWSGI forks without telling Python, so it is compared.
_process_id = os.getpid()
#: By app, what it was started with and the publisher, or why the core does not speak to the app's broker.
_publishers: weakref.WeakKeyDictionary[Celery, tuple[Any, Publisher | NotNative]] = weakref.WeakKeyDictionary()
#: Publishers of settings that have changed since, which may still have signals in their buffers.
_replaced: list[Publisher] = []
#: Publishers of the process that this one was forked from. They are kept for
#: ever: ending them would talk over the parent's connections.
_inherited: list[Any] = []


def publisher_for(app: Celery) -> Publisher:
    """The app's publisher, for the broker that its settings name now.

    Raises:
        NotNative: The core does not speak to the app's broker.
        BrokerMisconfigured: The app's broker settings cannot be right.
    """
    check_process()
    try:
        wanted: Any = _arguments(app)
    except NotNative as error:
        wanted = str(error)
    with _lock:
        made_of, publisher = _publishers.get(app, (None, None))
        if publisher is None or made_of != wanted:
            if isinstance(publisher, Publisher):
                _replaced[:] = [*(old for old in _replaced if old.buffered), publisher]
            publisher = NotNative(wanted) if isinstance(wanted, str) else _start(app, wanted)
            _publishers[app] = (wanted, publisher)
    if isinstance(publisher, NotNative):
        raise publisher
    return publisher


def set_publisher_aside(app: Celery) -> Callable[[], None]:
    """Has the app's next publisher be a new one; returns what puts the old one back, connections and all."""
    with _lock:
        aside = _publishers.pop(app, None)

    def put_back() -> None:
        with _lock:
            if aside is None:
                _publishers.pop(app, None)
            else:
                _publishers[app] = aside

    return put_back


def _arguments(app: Celery) -> dict[str, Any]:
    options, broker = settings.get(), broker_options(app)
    heartbeat = app.connection_for_write().heartbeat
    return {
        **broker,
        "timeout": float(options.publish_timeout),
        "buffer_size": int(options.buffer_size),
        # A native wait for room would hold up the hub: there, `buffer` looks again and again.
        "buffer_timeout": 0.0 if green.hub() else float(options.buffer_timeout),
        "heartbeat": float(heartbeat) if heartbeat else None,
    }


def _start(app: Celery, arguments: dict[str, Any]) -> Publisher:
    from .embedded import share

    share(app, arguments["urls"])
    return Publisher(**arguments, observer=_Observer())


class _Observer:
    """Logs what the publisher does that no sender waits for."""

    def lost(self, task_id: str, error: SignalNotSent) -> None:
        failure_reports.report(None, task_id, error)

    def disconnected(self, error: str) -> None:
        logger.warning("Disconnected from the broker, publishing waits: %s", error)

    def reconnected(self) -> None:
        logger.info("Connected to the broker again")

    def held(self, error: str) -> None:
        logger.warning("Background signals of one queue wait in this process: %s", error)


# Handing a message over: one that the native publisher has prepared, or one for Celery's own producer.


def confirm(message: Message) -> None:
    """Sends a message and waits until the broker has confirmed it.

    Raises:
        SignalNotSent: It was not confirmed within ``publish_timeout``.
    """
    if green.hub() is None or not isinstance(message, PreparedMessage):
        message.confirm()
        return
    error = green.wait(message.start())
    if error is not None:
        raise error


def wait(receipt: AnyReceipt) -> BaseException | None:
    """Waits until a message is settled, at its deadline at the latest; returns what went wrong."""
    return green.wait(receipt) if green.hub() is not None and isinstance(receipt, Receipt) else receipt.wait()


def buffer(message: Message, timeout: float | None = None) -> None:
    """Puts a message into the buffer of background messages, waiting for room if it must.

    Arguments:
        timeout: How long to wait at most, in seconds, if that is less than ``buffer_timeout``.

    Raises:
        SignalNotSent: The buffer is full.
    """
    if timeout is None and green.hub() is None and isinstance(message, PreparedMessage):
        message.buffer()
        return None
    for _ in attempts(timeout):
        try:
            return message.try_buffer()
        except SignalNotSent as error:
            if error.code != "buffer_full":
                raise
            full = error
        time.sleep(RETRY_PAUSE)  # the hub's, where threads are green
    raise full


def attempts(timeout: float | None = None) -> Iterator[None]:
    """Goes on for as long as a background send may wait for room in a full buffer; once at least."""
    patience = settings.get().buffer_timeout
    give_up = time.monotonic() + (patience if timeout is None else min(patience, timeout))
    while True:
        yield
        if time.monotonic() >= give_up:
            return


def flush(timeout: float | None = None) -> None:
    """Waits until the broker has every signal that was sent in the background before.

    Arguments:
        timeout: How long to wait, in seconds; ``flush_timeout`` if None.

    Raises:
        SignalNotSent: Some are not there yet. They stay on their way.
    """
    patience = settings.get().flush_timeout if timeout is None else timeout
    give_up = time.monotonic() + patience
    receipts = [publisher.start_flush(patience) for publisher in _native_publishers()]
    errors = [error for error in map(wait, receipts) if error is not None]
    celery_producer = _celery_producer()
    if celery_producer is not None:
        celery_producer.flush(max(0.0, give_up - time.monotonic()))
    if errors:
        raise errors[0]


def buffered() -> int:
    """How many background messages of this process have not reached the broker yet."""
    celery_producer = _celery_producer()
    left = 0 if celery_producer is None else celery_producer.waiting()
    return left + sum(publisher.buffered for publisher in _native_publishers())


def _native_publishers() -> list[Publisher]:
    started = [publisher for _, publisher in list(_publishers.values()) if isinstance(publisher, Publisher)]
    return [*_replaced, *started]


def _celery_producer() -> Any:
    """The module, if anything was ever published by it: it loads much of kombu."""
    return sys.modules.get(f"{__name__}.celery_producer")


# Processes: each has publishers of its own, and flushes them before it ends in good order.


def check_process() -> bool:
    """Starts anew in a process that was forked without Python being told, as uWSGI does; says whether it is one."""
    if os.getpid() == _process_id:
        return False
    _after_fork_in_child()
    return True


def _after_fork_in_child() -> None:
    global _lock, _process_id
    _process_id = os.getpid()
    _native.after_fork_in_child()
    _lock = threading.Lock()
    _inherited.extend([*_replaced, *(publisher for _, publisher in _publishers.values())])
    _replaced.clear()
    _publishers.clear()
    failure_reports.after_fork_in_child()
    celery_producer = _celery_producer()
    if celery_producer is not None:
        celery_producer.after_fork_in_child()
    settings.generation += 1


def _flush_at_exit() -> None:
    if os.getpid() != _process_id:
        return  # forked without Python being told, and nothing was sent since: what is buffered is the parent's
    from async_signals import transactions

    try:
        transactions.settle()
        flush()
    except Exception as error:
        left = buffered()
        if left:  # it may also be somebody's confirmed send that nobody waits for any more
            logger.error("%d background signals were not sent before the process ended: %s", left, error)
    with contextlib.suppress(ImproperlyConfigured):  # nothing was ever sent then
        patience = settings.get().flush_timeout
        _native.drain_events(patience)
        failure_reports.drain(patience)


def _flush_at_exit_of_child(_: object) -> None:
    multiprocessing.util.Finalize(None, _flush_at_exit, exitpriority=100)


def install() -> None:
    """Flushes at the interpreter's exit, at that of a multiprocessing child, and at that of a pool's process."""
    atexit.register(_flush_at_exit)
    # A child of multiprocessing leaves through os._exit, past atexit; what finalizers it inherits it drops first.
    multiprocessing.util.register_after_fork(_flush_at_exit, _flush_at_exit_of_child)
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(
            before=_native.before_fork,
            after_in_parent=_native.after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )
    with contextlib.suppress(ImportError):
        from celery.signals import worker_process_shutdown, worker_shutdown

        for signal in (worker_process_shutdown, worker_shutdown):
            signal.connect(lambda **_: _flush_at_exit(), weak=False, dispatch_uid="async_signals.exit")
