"""Celery's signals about a worker's own life, sent when a Celery worker would send them.

Projects hang on them what a worker needs: Celery's Django fixup connects in
`worker_init`, tracing begins in `worker_process_init`, health checks look at
`worker_ready`.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, signals
from celery._state import _set_task_join_will_block, set_default_app
from celery.worker import state
from kombu.clocks import LamportClock

logger = logging.getLogger("async_signals")


class Lifecycle:
    """One worker's life. All of it happens in the parent, but for `enter_process` and `leave_process`.

    Arguments:
        app: The Celery app.
        hostname: The worker's name.
        options: The command's options, as `celeryd_init` tells them.
    """

    def __init__(self, app: Celery, hostname: str, options: dict[str, Any]) -> None:
        self._app = app
        self._hostname = hostname
        self._options = options
        self._worker = _Worker(app, hostname, options)

    def begin(self) -> None:
        """Before anything is set up: listeners may change the app's settings."""
        signals.celeryd_init.send(
            sender=self._hostname, instance=self._worker, conf=self._app.conf, options=self._options
        )
        self._app.loader.init_worker()
        signals.worker_init.send(sender=self._worker)

    def set_up(self) -> None:
        """The queues are selected; listeners may change them."""
        signals.celeryd_after_setup.send(sender=self._hostname, instance=self._worker, conf=self._app.conf)

    def ready(self) -> None:
        """It reads its queues."""
        signals.worker_ready.send(sender=self._worker)

    def shutting_down(self, signal: str, how: str = "Warm", exitcode: int = 0) -> None:
        """It takes nothing new from now on.

        Arguments:
            signal: What it was told by: `SIGTERM`.
            how: `Warm`, or `Cold` when nothing is waited for.
        """
        signals.worker_shutting_down.send(sender=self._hostname, sig=signal, how=how, exitcode=exitcode)

    def ended(self) -> None:
        """All its processes are gone."""
        signals.worker_shutdown.send(sender=self._worker)

    def enter_process(self) -> None:
        """First of all in a process that was forked from the parent."""
        # Connections and locks of the parent, whose other threads may have held them in the moment of the fork.
        self._app._after_fork()
        self._app.clock = LamportClock(self._app.clock.value)
        self._app.set_current()
        set_default_app(self._app)
        _set_task_join_will_block(True)
        state.reset_state()
        self._app.loader.init_worker_process()
        signals.worker_process_init.send(sender=self._hostname)

    def leave_process(self, pid: int, exitcode: int = 0) -> None:
        """Last of all in such a process."""
        signals.worker_process_shutdown.send(sender=self._hostname, pid=pid, exitcode=exitcode)


class _Worker:
    """What listeners take for Celery's worker. Celery's own ask for no more."""

    pool_cls = __name__

    def __init__(self, app: Celery, hostname: str, options: dict[str, Any]) -> None:
        self.app = app
        self.hostname = hostname
        self.options = options
