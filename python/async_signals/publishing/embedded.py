"""One SQLite library for each process, where the broker is a SQLite file.

Python has a SQLite library and the core has another one. Two of them on one
file are safe in two processes, and destroy it in one: the system's locks are
a process's, so the two do not keep each other out. A process that publishes or
reads through the core therefore publishes Celery's other tasks through it too.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Producer

from async_signals import compat


def share(app: Celery, urls: list[str]) -> None:
    """Has all that the app publishes in this process go through the core, before that opens the file.

    Arguments:
        urls: The broker's. Nothing is done where it is no SQLite file.
    """
    if not all(url.startswith("sqla+sqlite") for url in urls):
        return
    compat.close_pools(app)
    compat.replace_producer_pool(app, _ProducerPool(app))


class _ProducerPool:
    """Celery's pool of producers, as far as Celery uses it to publish."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @property
    def connections(self) -> Any:
        """Where Celery looks up the kind of broker, for a message with an eta. Nothing is opened by that."""
        return self._app.pool

    def acquire(self, block: bool = False, timeout: float | None = None) -> Producer:
        """A producer, which is its own context manager."""
        return _producer(self._app)


def _producer(app: Celery) -> Producer:
    from async_signals.routing.producer import CoreProducer

    from . import confirm, publisher_for

    class TaskProducer(CoreProducer):
        """Has Celery make a message with any serializer, and the core publish it."""

        def _prepare(self, body: Any, *args: Any, **kwargs: Any) -> tuple[bytes, str, str]:
            encoded, content_type, content_encoding = Producer._prepare(self, body, *args, **kwargs)
            return encoded.encode() if isinstance(encoded, str) else bytes(encoded), content_type, content_encoding

        def _take(
            self, body: bytes, where: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]
        ) -> None:
            confirm(publisher_for(self._app).message(where, headers, properties, body))

    return TaskProducer(app)
