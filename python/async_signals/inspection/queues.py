"""How much waits in the queues that a project names."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from async_signals import pauses, settings
from async_signals._native import QueueBrowser
from async_signals.errors import SignalNotSent
from async_signals.publishing.broker import broker_options
from async_signals.routing import NotNative

from .answers import within
from .routes import named_queues
from .signals import signals_by_queue

if TYPE_CHECKING:
    from celery import Celery


@dataclasses.dataclass(frozen=True)
class QueueInfo:
    """A queue that Celery's settings or a signal name.

    Attributes:
        name: Its name.
        exists: Whether it is there. On Redis every queue is: an empty one is one that is not there.
        ready: How many messages wait in it.
        in_flight: How many were taken and are not acknowledged; None where the broker does not tell.
        consumers: How many read it; None where the broker does not tell.
        oldest: For how many seconds the message that comes next has been waiting; None where nobody can tell.
        signals: The names of the signals that go there.
        dead_letter_queue: Where its dead letters go; None: they are rejected.
        dead_letters: How many lie there; None where the broker does not tell.
        is_paused: Whether it is paused; None where nobody can tell.
        error: Why the broker told nothing of it; None: it did.
    """

    name: str
    exists: bool
    ready: int | None
    in_flight: int | None
    consumers: int | None
    oldest: float | None
    signals: tuple[str, ...]
    dead_letter_queue: str | None
    dead_letters: int | None
    is_paused: bool | None
    error: str | None = None


class QueueLook:
    """A connection to an app's broker that looks at queues, and takes nothing out of them.

    Where the core does not speak to the broker it is Celery's own connection, which tells less.

    Arguments:
        app: The Celery app.
        timeout: How many seconds connecting may take, and each answer; ``publish_timeout`` if None.

    Raises:
        SignalNotSent: The broker cannot be reached, or does not let us in.
    """

    def __init__(self, app: Celery, timeout: float | None = None) -> None:
        self.timeout = float(settings.get().publish_timeout if timeout is None else timeout)
        self._native: QueueBrowser | None = None
        self._channel: Any = None
        self._connection: Any = None
        #: Why nothing more is asked over Celery's connection.
        self._silent: SignalNotSent | None = None
        try:
            self._native = QueueBrowser(**broker_options(app), timeout=self.timeout)
        except NotNative:
            self._connection = app.connection_for_read(connect_timeout=self.timeout)

    @property
    def native(self) -> QueueBrowser | None:
        """The core's connection; None where it does not speak to the broker."""
        return self._native

    def depth(self, queue: str) -> dict[str, Any] | None:
        """What the broker tells of a queue: ``ready``, ``in_flight``, ``consumers``, ``oldest`` (seconds since 1970).

        None: there is no such queue.

        Raises:
            SignalNotSent: It did not answer, or did not want to.
        """
        if self._native is not None:
            return self._native.depth(queue)
        if self._silent is not None:
            raise self._silent
        try:
            told = within(self.timeout, lambda: self._ask_celery(queue))
        except TimeoutError as error:
            # A thread waits for it still: nobody else is to ask over the same connection.
            self._silent = SignalNotSent(f"the broker does not answer: {error}", "deadline")
            raise self._silent from error
        except Exception as error:
            self._channel = None
            if getattr(error, "reply_code", None) == 404 or getattr(error, "code", None) == 404:
                return None
            raise SignalNotSent(f"{type(error).__name__}: {error}", "refused") from error
        return {"ready": told.message_count, "in_flight": None, "consumers": None, "oldest": None}

    def _ask_celery(self, queue: str) -> Any:
        if self._channel is None:
            self._connection.ensure_connection(max_retries=1, timeout=self.timeout)
            self._channel = self._connection.channel()
        return self._channel.queue_declare(queue, passive=True)

    def close(self) -> None:
        """Closes the connection."""
        if self._native is not None:
            self._native.close()
        if self._connection is not None:
            with contextlib.suppress(Exception):
                within(self.timeout, self._connection.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def queues(app: Celery, look: QueueLook) -> Iterator[QueueInfo]:
    """Every queue that the app or a signal names, one by one; last the one where paused messages wait, if any do.

    Arguments:
        look: A connection to the app's broker.
    """
    by_queue = signals_by_queue(app)
    now = time.time()
    paused = _paused_queues()
    aside = pauses.queue_aside(app)
    for name in [*named_queues(app), aside]:
        dead = None if name == aside else settings.get().dead_letter_queue(name)
        told: dict[str, Any] | None = None
        waiting: int | None = None
        failure: str | None = None
        try:
            told = look.depth(name)
            waiting = 0 if dead is None else _ready(look, dead)
        except SignalNotSent as error:
            failure = str(error)
        if name == aside and (told is None or not told["ready"]):
            return
        sent_at = None if told is None else told["oldest"]
        yield QueueInfo(
            name=name,
            exists=told is not None,
            ready=None if failure else 0 if told is None else told["ready"],
            in_flight=None if told is None else told["in_flight"],
            consumers=None if told is None else told["consumers"],
            oldest=None if sent_at is None else max(0.0, now - sent_at),
            signals=tuple(by_queue.get(name, ())),
            dead_letter_queue=dead,
            dead_letters=waiting,
            is_paused=name == aside or (None if paused is None else name in paused),
            error=failure,
        )


def _ready(look: QueueLook, queue: str) -> int:
    depth = look.depth(queue)
    return 0 if depth is None else int(depth["ready"])


def _paused_queues() -> frozenset[str] | None:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError

    if not pauses.is_installed():
        return frozenset()
    try:
        return pauses.look().queues
    except (DatabaseError, ImproperlyConfigured):
        return None
