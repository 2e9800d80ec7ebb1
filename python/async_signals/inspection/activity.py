"""What happens to signals just now, as Celery's monitoring events tell it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from async_signals.errors import SignalNotSent
from async_signals.routing import TASK

from .signals import is_like

if TYPE_CHECKING:
    from celery import Celery

#: Of how many messages the signal is remembered: only the first events of a message name it.
_REMEMBERED = 10_000
#: How many events may wait to be read.
_MOST_WAITING = 1_000
#: How often a listener that hears nothing looks whether its time is over, in seconds.
_ATTENTION = 0.5

_SIGNAL = re.compile(r"""[(\[]\s*(?:'([^']+)'|"([^"]+)")""")


@dataclasses.dataclass(frozen=True)
class Activity:
    """Something that happened to a message.

    Attributes:
        at: When.
        what: Celery's word for it: "sent", "received", "started", "succeeded", "failed", "retried", "revoked", …
        signal: The signal's name; None where its first events were not heard.
        id: The task's id.
        where: The worker's name; of what was sent, the queue.
        detail: The seconds that it ran, or what it failed with.
    """

    at: datetime
    what: str
    signal: str | None
    id: str
    where: str | None
    detail: str | None


class Listener:
    """Listens to an app's events about signals.

    Arguments:
        app: The Celery app.
        pattern: Only signals whose name is like this; None: all.
        timeout: How many seconds connecting may take.

    Raises:
        SignalNotSent: The broker cannot be reached, or carries no events.
    """

    def __init__(self, app: Celery, pattern: str | None = None, timeout: float = 5.0) -> None:
        self._app = app
        self._pattern = pattern
        self._signals: OrderedDict[str, str] = OrderedDict()
        self._heard: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._connection = app.connection_for_read(connect_timeout=timeout)
        if not self._connection.supports_exchange_type("fanout"):
            raise SignalNotSent("this broker carries no events: Celery sends them through RabbitMQ and Redis only")
        try:
            self._connection.ensure_connection(max_retries=1, timeout=timeout)
        except Exception as error:
            raise SignalNotSent(f"{type(error).__name__}: {error}", "unreachable") from error

    def enable_events(self) -> None:
        """Has every worker that hears it send events from now on, as ``celery control enable_events`` does."""
        self._app.control.enable_events(connection=self._connection)

    def listen(self, seconds: float | None = None) -> Iterator[Activity | None]:
        """What happens, as it happens; None now and then, when nothing does.

        Arguments:
            seconds: For how long; None: for ever.

        Raises:
            SignalNotSent: The broker is gone.
        """
        end = None if seconds is None else time.monotonic() + seconds
        receiver = self._app.events.Receiver(self._connection, handlers={"*": self._heard.append})
        try:
            with receiver.consumer_context(wakeup=False) as (connection, _channel, _consumers):
                while end is None or time.monotonic() < end:
                    with contextlib.suppress(TimeoutError, socket.timeout):
                        connection.drain_events(timeout=_ATTENTION)
                    while self._heard:
                        activity = self._read(self._heard.popleft())
                        if activity is not None:
                            yield activity
                    yield None
        except self._connection.connection_errors as error:
            raise SignalNotSent(f"the connection is gone: {error}", "unreachable") from error

    def close(self) -> None:
        """Closes the connection."""
        with contextlib.suppress(Exception):
            self._connection.release()

    def _read(self, event: dict[str, Any]) -> Activity | None:
        kind, _, what = str(event.get("type")).partition("-")
        task_id = event.get("uuid")
        if kind != "task" or not isinstance(task_id, str):
            return None
        name = event.get("name")
        if name is not None:
            if name != TASK:
                return None
            found = _SIGNAL.match(str(event.get("args")))
            if found is not None:
                self._signals[task_id] = found[1] or found[2]
                while len(self._signals) > _REMEMBERED:
                    self._signals.popitem(last=False)
        signal = self._signals.get(task_id)
        if signal is None and name is None:
            return None  # another task, or a signal that was sent before we listened
        if signal is not None and not is_like(signal, self._pattern):
            return None
        where = event.get("queue") if what == "sent" else event.get("hostname")
        return Activity(
            at=datetime.fromtimestamp(float(event.get("timestamp") or time.time()), UTC),
            what=what,
            signal=signal,
            id=task_id,
            where=None if where is None else str(where),
            detail=_detail(event),
        )


def _detail(event: dict[str, Any]) -> str | None:
    if isinstance(event.get("runtime"), (int, float)):
        return f"in {event['runtime']:.6f} s"
    return None if event.get("exception") is None else str(event["exception"])
