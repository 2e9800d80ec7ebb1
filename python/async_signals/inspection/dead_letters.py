"""What lies in the dead-letter queues, and sending it again or discarding it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from async_signals import _native, pauses, settings
from async_signals.publishing.broker import broker_options

from .queues import QueueLook
from .routes import named_queues

if TYPE_CHECKING:
    from celery import Celery

#: How many messages one request looks at or takes.
PAGE = 100
#: How many messages are looked at where looking means taking, and giving back (RabbitMQ).
MOST_TAKEN = 1000


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which dead letters are meant. Each field that is set leaves some out.

    Attributes:
        ids: Those that have one of these ids.
        signal: Those of this signal, or of another task of this name.
        receiver: Those that this receiver failed for, by its name in messages.
        exception: Those in whose reason, or in the error of a receiver, this exception is named.
        before: Those that were dead-lettered before this moment, in seconds since 1970.
        since: Those that were dead-lettered at this moment or later, in seconds since 1970.
    """

    ids: tuple[str, ...] = ()
    signal: str | None = None
    receiver: str | None = None
    exception: str | None = None
    before: float | None = None
    since: float | None = None

    def _for_core(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "ids": list(self.ids)}


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """A message in a dead-letter queue.

    Attributes:
        dead_letter_queue: Where it lies.
        id: The task's id; "" where the message has none.
        signal: The signal's name; another task's name; None where the message does not say.
        kind: Why it lies there, as a word: ``ReceiversFailed``, ``UnknownSignal``, …
        reason: Why, in a sentence.
        queue: The queue that it came from, and to which it is sent again.
        dead_lettered_at: When; None where the message does not say.
        failures: For each receiver that failed: ``receiver``, ``error``, ``traceback``.
        headers: All of the message's headers.
        body: Its body, decoded if it is JSON.
    """

    dead_letter_queue: str
    id: str
    signal: str | None
    kind: str | None
    reason: str | None
    queue: str | None
    dead_lettered_at: datetime | None
    failures: tuple[dict[str, Any], ...]
    headers: dict[str, Any] | None
    body: Any

    @classmethod
    def _read(cls, dead_letter_queue: str, text: str) -> DeadLetter:
        told = json.loads(text)
        why = told["why"]
        at = why.get("at")
        failures = why.get("failures")
        return cls(
            dead_letter_queue=dead_letter_queue,
            id=told["id"],
            signal=told["signal"],
            kind=_text(why.get("kind")),
            reason=_text(why.get("reason")),
            queue=_text(why.get("queue")),
            dead_lettered_at=_moment(at),
            failures=tuple(failure for failure in failures if isinstance(failure, dict))
            if isinstance(failures, list)
            else (),
            headers=told["headers"],
            body=told["body"],
        )

    def summary(self) -> dict[str, Any]:
        """One line's worth: no arguments, which may be personal data. The reason may quote what an exception said."""
        return {
            "dead_letter_queue": self.dead_letter_queue,
            "id": self.id,
            "signal": self.signal,
            "kind": self.kind,
            "reason": self.reason,
            "queue": self.queue,
            "dead_lettered_at": None if self.dead_lettered_at is None else self.dead_lettered_at.isoformat(),
            "receivers": [failure.get("receiver") for failure in self.failures],
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it."""
        return {**self.summary(), "failures": list(self.failures), "headers": self.headers, "body": self.body}


@dataclasses.dataclass(frozen=True)
class Page:
    """Some dead letters of one queue.

    Attributes:
        letters: Those that the filter means, oldest first.
        examined: How many messages were looked at for it.
        is_cut: Whether messages behind it were not looked at, because this broker shows only so many.
    """

    letters: list[DeadLetter]
    examined: int
    is_cut: bool = False


class DeadLetterQueue:
    """One dead-letter queue of an app.

    Arguments:
        app: The Celery app.
        name: The dead-letter queue's name.
        look: A connection to the app's broker; it stays the caller's.
    """

    def __init__(self, app: Celery, name: str, look: QueueLook) -> None:
        self.name = name
        #: How many messages a scan has not seen yet; at its end, those that others hold, or that are too many.
        self.not_seen = 0
        self._app = app
        self._look = look

    def count(self) -> int:
        """How many messages lie there; a queue that is not there holds none.

        Raises:
            SignalNotSent: The broker did not answer, or did not want to.
        """
        depth = self._look.depth(self.name)
        return 0 if depth is None else int(depth["ready"])

    def pages(self, filter: Filter | None = None) -> Iterator[Page]:
        """Looks through it, oldest first, and takes nothing.

        RabbitMQ shows a message to nobody but who takes it: there the first 1,000 are taken and given back.

        Raises:
            NotNative: The core does not speak to the broker.
            SignalNotSent: The broker did not answer, or did not want to.
        """
        wanted = (filter or Filter())._for_core()
        browser = self._look.native
        if browser is None:
            broker_options(self._app)  # raises NotNative, with the reason
            raise AssertionError("unreachable")
        position: int | None = 0
        while position is not None:
            found = browser.dead_letters(self.name, position, PAGE, wanted)
            if found is None:
                yield from self._taken_pages(wanted)
                return
            examined, texts, position = found
            yield Page([DeadLetter._read(self.name, text) for text in texts], examined)

    def _taken_pages(self, wanted: dict[str, Any]) -> Iterator[Page]:
        there = self.count()
        if there == 0:
            return
        with self._taking() as native:
            left = MOST_TAKEN
            while left > 0:
                examined, texts = native.take(min(left, PAGE), wanted)
                left -= examined
                if examined == 0:
                    return
                is_cut = left <= 0 and there > MOST_TAKEN
                yield Page([DeadLetter._read(self.name, text) for text in texts], examined, is_cut)

    def scan(self, filter: Filter | None = None) -> Iterator[ScannedPage]:
        """Takes it through from its oldest message to its newest, so that messages can be sent again or discarded.

        What is not goes back at the end, in its place; RabbitMQ lets go of 65,535 at most until then. Only those are
        seen that lay there when it began: what fails again meanwhile is left for the next time.

        Raises:
            NotNative: The core does not speak to the broker.
            SignalNotSent: The broker did not answer, or did not want to.
        """
        wanted = (filter or Filter())._for_core()
        left = self.not_seen = self.count()
        if left == 0:
            return
        with self._taking() as native:
            while left > 0:
                examined, texts = native.take(min(left, PAGE), wanted)
                left -= examined
                self.not_seen = left
                if examined == 0:
                    return
                yield ScannedPage(self.name, native, texts, examined)

    @contextmanager
    def _taking(self) -> Iterator[_native.DeadLetterQueue]:
        native = _native.DeadLetterQueue(
            **broker_options(self._app),
            queue=self.name,
            timeout=self._look.timeout,
            max_age=None if self.name == pauses.queue_aside(self._app) else settings.get().dead_letters_max_age,
        )
        with contextlib.closing(native):
            yield native


class ScannedPage:
    """Some dead letters that were taken, and are this process's until the next page.

    Attributes:
        examined: How many messages were taken for it.
    """

    def __init__(self, queue: str, native: _native.DeadLetterQueue, texts: list[str], examined: int) -> None:
        self.examined = examined
        self._native = native
        self._letters = [DeadLetter._read(queue, text) for text in texts]

    def letters(self) -> Iterator[tuple[int, DeadLetter]]:
        """Those that the filter means, with their numbers."""
        return iter(enumerate(self._letters))

    def replay(self, number: int) -> str:
        """Sends one again, for the receivers that it was dead-lettered for; returns the queue that it went to.

        It is taken out of the dead-letter queue once the broker has it in the other: at worst it is in both.

        Raises:
            SignalNotSent, ValueError: It stays where it is; the message says why.
            ConnectionError: It was sent, and is still there: nothing more can be taken out.
        """
        return self._native.replay(number)

    def discard(self, number: int) -> None:
        """Discards one: it is gone.

        Raises:
            SignalNotSent: The connection is lost: it may be there still.
        """
        self._native.discard(number)


def dead_letter_queues(app: Celery, queue: str | None = None) -> list[str]:
    """The dead-letter queues of one queue, or of all that the app and its signals name; none where there are none."""
    options = settings.get()
    known = [queue] if queue else named_queues(app)
    names = dict.fromkeys(options.dead_letter_queue(name) for name in known)
    return [name for name in names if name is not None]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _moment(at: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(at), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
