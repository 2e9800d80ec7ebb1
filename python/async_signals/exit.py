"""Background signals are flushed before the process ends, whoever ends it in good order."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util

from .publishers import flush

logger = logging.getLogger("async_signals")


def _flush() -> None:
    try:
        flush()
    except Exception as error:
        logger.error("Background signals were lost at exit: %s", error)


def _finalize(_: object) -> None:
    multiprocessing.util.Finalize(None, _flush, exitpriority=100)


def install() -> None:
    """Flushes at the interpreter's exit, at that of a multiprocessing child, and at that of a pool's process."""
    atexit.register(_flush)
    # A child of multiprocessing leaves through os._exit, past atexit; what finalizers it inherits it drops first.
    multiprocessing.util.register_after_fork(_flush, _finalize)
    try:
        from celery.signals import worker_process_shutdown, worker_shutdown
    except ImportError:
        return
    for signal in (worker_process_shutdown, worker_shutdown):
        signal.connect(lambda **_: _flush(), weak=False, dispatch_uid="async_signals.exit")
