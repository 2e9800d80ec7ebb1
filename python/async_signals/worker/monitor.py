"""What a worker's parent tells monitors, and what it answers them: Celery's worker events and remote control.

By a thread and a connection of its own. A broker that is slow or gone costs
heartbeats and answers, never a message.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from celery import Celery, signals
from celery.events import EventDispatcher
from celery.utils.sysinfo import load_average
from celery.worker.state import SOFTWARE_INFO
from kombu import Connection

from .control import Commands, Pool
from .events import has_transport
from .reports import Reports

logger = logging.getLogger("async_signals")

#: Between attempts to connect, in seconds: doubled each time, up to the second.
_PAUSES = (0.5, 15.0)
#: How long the worker's start waits until monitors can see it, in seconds: at most.
_BEGINNING = 2.0
#: How long it may take to notice that it is to stop, in seconds.
_ATTENTION = 0.5


class Monitor:
    """Says that the worker is there, every few seconds, and answers `celery inspect`, `celery control` and Flower.

    Arguments:
        app: The Celery app, with the worker's queues selected (`app.amqp.queues.consume_from`).
        hostname: The worker's name.
        reports: Where its processes tell what they do.
        pool: The processes, and the way to stop them.
        task_events: Whether task events were asked for (`-E`).
        heartbeat: Seconds between heartbeats; None: no events of the worker itself.
    """

    def __init__(
        self,
        app: Celery,
        hostname: str,
        reports: Reports,
        pool: Pool,
        *,
        task_events: bool = False,
        heartbeat: float | None = 2.0,
    ) -> None:
        self._app = app
        self._hostname = hostname
        self._reports = reports
        self._beats = has_transport(app) and heartbeat is not None
        self._interval = heartbeat or 2.0
        self._commands = Commands(app, hostname, reports, pool, task_events and has_transport(app))
        self._listens = bool(
            app.conf.worker_enable_remote_control and app.connection_for_read().supports_exchange_type("fanout")
        )
        self._stopping = threading.Event()
        self._is_seen = threading.Event()
        self._thread = threading.Thread(target=self._run, name="async-signals-monitor", daemon=True)
        if task_events and not has_transport(app):
            logger.warning("Task events are off: this broker cannot carry them")

    def start(self) -> None:
        """From now on. Returns when monitors can see it, or soon, whether the broker is there or not."""
        if self._beats or self._listens:
            self._thread.start()
            self._is_seen.wait(_BEGINNING)

    def stop(self, timeout: float = 2.0) -> None:
        """Says that the worker is gone, as far as that is possible in so many seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = _PAUSES[0]
        while not self._stopping.is_set():
            try:
                with self._app.connection_for_write() as connection:
                    connection.connect()
                    logger.debug("Monitors can see this worker")
                    pause = _PAUSES[0]
                    self._serve(connection)
            except Exception as error:
                if not self._stopping.is_set():
                    logger.warning("Monitors cannot see this worker, which goes on: %s", error)
                self._stopping.wait(pause)
                pause = min(pause * 2, _PAUSES[1])

    def _serve(self, connection: Connection) -> None:
        """Until it is stopped; raises when the broker is gone."""
        dispatcher = self._app.events.Dispatcher(
            connection,
            hostname=self._hostname,
            enabled=self._beats,
            groups=["worker"],
            buffer_while_offline=False,
        )
        if self._listens:
            self._commands.listen(connection)
        self._commands.on_heartbeat = lambda: self._beat(dispatcher, "worker-heartbeat")
        self._beat(dispatcher, "worker-online")
        if self._listens:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=0.01)  # with which kombu subscribes, on Redis
        self._is_seen.set()
        due = time.monotonic() + self._interval
        while not self._stopping.is_set():
            patience = min(due - time.monotonic(), _ATTENTION)
            if patience <= 0:
                self._beat(dispatcher, "worker-heartbeat")
                due = time.monotonic() + self._interval
            elif self._listens:
                try:
                    connection.drain_events(timeout=patience)
                except TimeoutError:
                    continue
            else:
                self._stopping.wait(patience)
        self._beat(dispatcher, "worker-offline")

    def _beat(self, dispatcher: EventDispatcher, type: str) -> None:
        if not self._beats:
            return
        signals.heartbeat_sent.send(sender=self)
        reports = self._commands.ask()
        dispatcher.send(
            type,
            freq=self._interval,
            active=sum(len(report["running"]) for report in reports),
            processed=self._reports.begun().total(),
            loadavg=load_average(),
            **SOFTWARE_INFO,
        )
