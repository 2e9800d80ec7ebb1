"""What one process of a worker tells monitors about its tasks: Celery's task events.

They leave by a thread and a connection of their own. A broker that is slow or
gone costs events, never a task.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from traceback import format_exception
from typing import Any

from celery import Celery
from celery.events import Event, EventDispatcher
from celery.utils.time import utcoffset
from kombu import Connection
from kombu.utils.encoding import safe_repr

from .job import Job

logger = logging.getLogger("async_signals")

#: Events that wait for the broker at most; the oldest go first.
_LIMIT = 10_000
#: Events in one message at most.
_BATCH = 200
#: Between attempts to connect, in seconds: doubled each time, up to the second.
_PAUSES = (0.5, 15.0)


def has_transport(app: Celery) -> bool:
    """Whether events can go over the app's broker: Celery sends none over a database."""
    return app.connection_for_write().transport.driver_type not in EventDispatcher.DISABLED_TRANSPORTS


class Events:
    """Sends task events, while somebody wants them.

    Celery's requests take it for their dispatcher: they ask `enabled` and call
    `send`. The short way of signals asks `wanted` first, so that nothing is
    paid for events that nobody wants.

    Arguments:
        app: The Celery app.
        hostname: The worker's name.
        wanted: Whether task events are sent from the start (`-E`); monitors may ask for them later.

    Attributes:
        enabled: Whether the broker can carry events at all.
        wanted: Whether task events are sent. May be changed at any time.
    """

    def __init__(self, app: Celery, hostname: str, wanted: bool = False) -> None:
        self._app = app
        self._hostname = hostname
        self.enabled = has_transport(app)
        self._wanted = wanted and self.enabled
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_LIMIT)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def wanted(self) -> bool:
        return self._wanted

    @wanted.setter
    def wanted(self, value: bool) -> None:
        self._wanted = value and self.enabled

    def send(self, type: str, **fields: Any) -> None:
        """Hands an event to the thread that sends them. Never waits.

        Arguments:
            type: `task-received`, `task-started`, …
            fields: What it says. Their values must be fit for JSON.
        """
        if not self._wanted:
            return
        event = Event(
            type,
            hostname=self._hostname,
            utcoffset=utcoffset(),
            pid=os.getpid(),
            clock=self._app.clock.forward(),
            **fields,
        )
        self._waiting.append(event)
        if self._thread is None:
            self._start()
        self._wake.set()

    def received(self, job: Job) -> None:
        """A signal was taken, and is about to run."""
        headers = job.headers
        self.send(
            "task-received",
            uuid=job.id,
            name=job.task,
            args=headers.get("argsrepr", ""),
            kwargs=headers.get("kwargsrepr", ""),
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries", 0),
            eta=headers.get("eta"),
            expires=headers.get("expires"),
        )

    def started(self, job: Job) -> None:
        """Its first receiver is about to be called."""
        self.send("task-started", uuid=job.id)

    def succeeded(self, job: Job, runtime: float) -> None:
        """All its receivers ran.

        Arguments:
            runtime: How long they took, in seconds.
        """
        self.send("task-succeeded", uuid=job.id, result="None", runtime=runtime)

    def failed(self, job: Job, error: BaseException) -> None:
        """A receiver failed, or it could not be run."""
        self.send("task-failed", uuid=job.id, exception=safe_repr(error), traceback=_traceback(error))

    def close(self, timeout: float = 1.0) -> None:
        """Sends what waits, as far as that is possible in so many seconds."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="async-signals-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = _PAUSES[0]
        while self._waiting or not self._closing.is_set():
            try:
                with self._app.connection_for_write() as connection:
                    connection.connect()
                    pause = _PAUSES[0]
                    self._send_all(connection)
            except Exception as error:
                logger.warning("Task events wait for the broker: %s", error)
                if self._closing.wait(pause):
                    return
                pause = min(pause * 2, _PAUSES[1])

    def _send_all(self, connection: Connection) -> None:
        """Until it is closed; raises when the broker is gone."""
        dispatcher = self._app.events.Dispatcher(connection, hostname=self._hostname)
        while self._waiting or not self._closing.is_set():
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            if not batch:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                dispatcher.producer.publish(
                    batch,
                    exchange=dispatcher.exchange.name,
                    routing_key="task.multi",
                    declare=[dispatcher.exchange],
                    serializer=dispatcher.serializer,
                    headers=dispatcher.headers,
                    delivery_mode=dispatcher.delivery_mode,
                )
            except connection.connection_errors + connection.channel_errors:
                self._waiting.extendleft(reversed(batch[: _LIMIT - len(self._waiting)]))
                raise
            except Exception:
                logger.exception("%d task events could not be sent", len(batch))


def _traceback(error: BaseException) -> str:
    return "".join(format_exception(type(error), error, error.__traceback__))
