"""Listens to Celery's monitoring events on a broker, as Flower and `celery events` do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery

Event = dict[str, Any]


class Events:
    """Keeps every event from its start to its `close`.

    Arguments:
        url: the broker.
        settings: Celery's, where they shape how events go.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        self._app = Celery("watching", broker=url, set_as_current=False)
        self._app.conf.update(settings)
        self._seen: list[Event] = []
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="events", daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self._on_event})
            # It listens over a connection of its own.
            with receiver.consumer_context(wakeup=False) as (listening, _channel, _consumers):
                while not self._closing:
                    with contextlib.suppress(TimeoutError):
                        # The first of these subscribes, on Redis.
                        listening.drain_events(timeout=0.2 if self._ready.is_set() else 0.01)
                    self._ready.set()

    def _on_event(self, event: Event) -> None:
        with self._changed:
            self._seen.append(event)
            self._changed.notify_all()

    def seen(self, type: str | None = None) -> list[Event]:
        """What was sent so far, of one type or of all."""
        with self._changed:
            return [event for event in self._seen if type in {None, event["type"]}]

    def wait_until(self, happened: Callable[[], bool], what: str, *, timeout: float = 30) -> None:
        """Waits until `happened` holds, asked again after every event."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not happened():
                if not self._changed.wait(deadline - time.monotonic()) and not happened():
                    told = [(event["type"], event.get("uuid")) for event in self._seen]
                    raise AssertionError(f"waited {timeout} s for {what}; seen: {told}")

    def wait_for(self, type: str, count: int = 1) -> list[Event]:
        """Waits for so many events of a type, and returns them."""
        self.wait_until(lambda: len(self.seen(type)) >= count, f"{count} {type}")
        return self.seen(type)

    def close(self) -> None:
        self._closing = True
        self._thread.join(10)
        self._app.close()  # else it would be one of the apps that a signal may go to
