"""A captured signal, run as a worker would: what it costs is its receivers, and nothing waits."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from async_signals import names, propagation, routing
from async_signals._native import FollowUp, Incoming, decode_body
from async_signals.delivery import Delivery
from async_signals.errors import DeadLettered
from async_signals.failures import Failure
from async_signals.inspection.routes import queue_of
from async_signals.references import MissingRow, UnresolvableReference
from async_signals.routing import TASK

from .commits import commits
from .differences import name_of

if TYPE_CHECKING:
    from .capture import CapturedSignal

#: After how many tries a receiver is given up that its ``retry`` would try for ever.
_MOST_TRIES = 1000
#: How many of the signals that ran last are named when they seem to go on for ever.
_MOST_NAMED = 10
#: The properties of every signal's message.
_PROPERTIES = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0}
#: The queue of Celery's own default settings.
_DEFAULT_QUEUE = "celery"


@dataclasses.dataclass(frozen=True)
class ReceiverRun:
    """One receiver that was called for one message.

    Attributes:
        signal: The signal that it was called for, as it was captured.
        receiver: The receiver.
        response: What it returned in the end; the exception, if it raised one.
        attempts: How often it was tried.
        failed: Whether it raised, in its last try too.
    """

    signal: CapturedSignal
    receiver: Callable[..., Any]
    response: Any
    attempts: int
    failed: bool


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """A message that a worker would have put into the dead-letter queue.

    Attributes:
        signal: The signal, as it was captured.
        kind: Why, as a word: ``ReceiversFailed``, ``MissingRow``, …
        reason: Why, in a sentence.
        receivers: The receivers that it would be for when it is replayed, by their names in messages; None: all.
    """

    signal: CapturedSignal
    kind: str
    reason: str
    receivers: list[str] | None


class ReceiverRuns(list[ReceiverRun]):
    """The receivers that were called, in the order in which they ended.

    Attributes:
        dead_letters: What would have become a dead letter.
        errors: What receivers raised for good, and what could not be run at all.
        expired: The signals that had expired by the time at which they were due.
        messages: How many messages were run.
        last_signals: The names of the signals that ran last, the last one at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dead_letters: list[DeadLetter] = []
        self.errors: list[Exception] = []
        self.expired: list[CapturedSignal] = []
        self.messages = 0
        self.last_signals: deque[str] = deque(maxlen=_MOST_NAMED)

    def extend_by(self, other: ReceiverRuns) -> None:
        """Puts another run's behind these."""
        self.extend(other)
        self.dead_letters += other.dead_letters
        self.errors += other.errors
        self.expired += other.expired
        self.messages += other.messages
        self.last_signals.extend(other.last_signals)

    def raise_errors(self) -> None:
        """Raises what receivers have raised: the exception itself, or all of them as a group."""
        __tracebackhide__ = True
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ExceptionGroup(f"{len(self.errors)} receivers failed", self.errors)


def refuse_event_loop() -> None:
    """Raises RuntimeError where coroutine functions among receivers could not be waited for."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("this is an event loop's thread, which receivers would block; use await arun() or adrain()")


def due(captured: CapturedSignal) -> datetime:
    """Before when no worker would run it; of those that wait for nothing, one is as soon as the other."""
    eta, countdown = captured.options.get("eta"), captured.options.get("countdown")
    if eta is not None:
        return _aware(eta)
    return _AT_ONCE if not countdown else captured.sent_at + timedelta(seconds=countdown)


_AT_ONCE = datetime.min.replace(tzinfo=UTC)


def run(captured: CapturedSignal, runs: ReceiverRuns) -> None:
    """Runs one message, with all tries of its receivers, and adds what came of it.

    What receivers set in the context of their thread, such as a language, is gone afterwards.
    """
    runs.messages += 1
    runs.last_signals.append(name_of(captured.signal))
    expires = _expires(captured)
    if expires is not None and expires <= max(datetime.now(UTC), due(captured)):
        runs.expired.append(captured)
        return
    contextvars.copy_context().run(_Message(captured, expires, runs).run)


class _Message:
    """One message, from its first try to its end."""

    def __init__(self, captured: CapturedSignal, expires: datetime | None, runs: ReceiverRuns) -> None:
        self._captured = captured
        self._runs = runs
        self._queue = _queue(captured)
        ours = {"queue": self._queue, "sent_at": captured.sent_at.timestamp()}
        headers: dict[str, Any] = {"id": captured.id, "task": TASK, "async_signals": ours}
        if expires is not None:
            headers["expires"] = expires.isoformat()
        self._incoming = self._read(headers, captured.body)

    def _read(self, headers: dict[str, Any], body: bytes) -> Incoming:
        return Incoming(headers, {**_PROPERTIES, "correlation_id": self._captured.id}, "", self._queue, body)

    def run(self) -> None:
        body: bytes | None = self._captured.body
        while body is not None:
            (name, sender), named, _ = decode_body(body)
            body = self._try(name, sender, named)

    def _try(self, name: str, sender: Any, named: dict[str, Any]) -> bytes | None:
        """Returns the body of the message that would be published for another try; None: it has come to its end."""
        captured, incoming = self._captured, self._incoming
        # A signal without a name is only ever called where it is sent.
        signal = names.find(name) if name else captured.signal
        if signal is None:
            self._dead("UnknownSignal", f"there is no signal {name!r} here", None)
            return None
        delivery = Delivery(
            id=captured.id,
            signal=name,
            attempt=incoming.attempt,
            queue=self._queue,
            sent_at=captured.sent_at,
            redeliveries=incoming.deliveries,
        )
        responses: list[propagation.Response] = []
        failures: list[Failure] = []
        try:
            with commits():
                failures = propagation.run(signal, sender, named, delivery, incoming.receivers, responses)
        except (UnresolvableReference, MissingRow) as error:
            self._dead(type(error).__name__, str(error), error)
            return None
        except Exception as error:
            error.add_note(f"raised by a hook that receivers of {name_of(signal)}[{captured.id}] gave to on_commit")
            self._runs.errors.append(error)
        follow_ups = incoming.failed(self._queue, [each.for_core() for each in failures]) if failures else []
        again = next((each for each in follow_ups if not each.dead_letter), None)
        if incoming.attempt >= _MOST_TRIES:
            again = None
        self._note(responses, failures, frozenset(again.receivers or ()) if again is not None else frozenset())
        self._runs.dead_letters += [
            DeadLetter(captured, each.kind or "", each.reason or "", each.receivers)
            for each in follow_ups
            if each.dead_letter
        ]
        return None if again is None else self._next(again)

    def _next(self, again: FollowUp) -> bytes:
        self._incoming = self._read(json.loads(again.headers), again.body)
        return again.body

    def _note(self, responses: list[propagation.Response], failures: list[Failure], again: frozenset[str]) -> None:
        """Adds the receivers that have come to their end in this try."""
        attempt = self._incoming.attempt
        failed = {id(each.error): each for each in failures if each.error is not None}
        for receiver, response in responses:
            failure = failed.get(id(response))
            if failure is not None and failure.receiver in again:
                continue
            self._runs.append(ReceiverRun(self._captured, receiver, response, attempt, failure is not None))
        for each in failures:
            if each.receiver in again:
                continue
            where = f"signal {name_of(self._captured.signal)}[{self._captured.id}]"
            error = each.error
            if error is None:
                error = DeadLettered(f"receiver {each.receiver}, which {where} is still for, is not here any more")
            tries = "" if attempt == 1 else f" in try {attempt}, the last one"
            error.add_note(f"raised by receiver {each.receiver} of {where}{tries}")
            self._runs.errors.append(error)

    def _dead(self, kind: str, reason: str, error: Exception | None) -> None:
        captured = self._captured
        self._runs.dead_letters.append(DeadLetter(captured, kind, reason, None))
        raised = DeadLettered(reason) if error is None else error
        raised.add_note(
            f"signal {name_of(captured.signal)}[{captured.id}] would be dead-lettered, and call no receiver"
        )
        self._runs.errors.append(raised)


def _queue(captured: CapturedSignal) -> str:
    """The queue that it would lie in; Celery's own default where that cannot be known."""
    asked = captured.options.get("queue")
    if asked is not None:
        return str(asked)
    app = routing.plan_for(captured.signal).app
    found = None if app is None else queue_of(captured.signal, app.amqp.router)
    return found or captured.signal.queue or _DEFAULT_QUEUE


def _expires(captured: CapturedSignal) -> datetime | None:
    expires = captured.options.get("expires", captured.signal.expires)
    if expires is None:
        return None
    return _aware(expires) if isinstance(expires, datetime) else captured.sent_at + timedelta(seconds=expires)


def _aware(moment: datetime) -> datetime:
    """The moment with its time zone, which is Celery's where it has none."""
    if moment.tzinfo is not None:
        return moment
    app = routing.find_app()
    zone: tzinfo = UTC if app is None else app.timezone
    return moment.replace(tzinfo=zone)
