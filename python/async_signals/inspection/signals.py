"""Which signals there are, and who receives them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from async_signals import names, settings
from async_signals.receivers import Receiver
from async_signals.retries import Retry

from .routes import Routes

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.dispatcher import AsyncSignal


#: What the names of this package's own signals begin with.
_OWN = "async_signals."


@dataclasses.dataclass(frozen=True)
class ReceiverInfo:
    """A receiver that is connected in this process.

    Attributes:
        name: Its name in messages.
        sender: The sender that it is connected for, as text; None: every sender.
        file, line: Where it is defined; None where Python does not tell.
        is_async: Whether it is a coroutine function.
        retry: Its retries, the signal's if it has none of its own; None: it is not tried again.
        once: Whether it has one effect for each message.
    """

    name: str
    sender: str | None
    file: str | None
    line: int | None
    is_async: bool
    retry: dict[str, Any] | None
    once: bool


@dataclasses.dataclass(frozen=True)
class SignalInfo:
    """A signal that this process knows.

    Attributes:
        name: Its name in messages.
        aliases: Older names, which are still received.
        file, line: Where it was made.
        queue: The queue that Celery's router has for it; None where only a send would tell.
        durability: "confirmed" or "background".
        on_commit: Whether a send in a transaction waits for the commit.
        when_paused: What becomes of its sends while it is paused: "keep" or "refuse".
        priority, expires, providing_args: As the signal was made.
        receivers: Who is connected to it, in the order in which they are called.
    """

    name: str
    aliases: tuple[str, ...]
    file: str
    line: int
    queue: str | None
    durability: str
    on_commit: bool
    when_paused: str
    priority: int | None
    expires: float | None
    providing_args: tuple[str, ...] | None
    receivers: tuple[ReceiverInfo, ...]


def signals(app: Celery | None, pattern: str | None = None) -> Iterator[SignalInfo]:
    """The signals of this process, in the order of their names.

    Arguments:
        app: The Celery app whose router is asked for queues; None: no queues are told.
        pattern: Only those whose name is like this, with ``*`` and ``?`` as in file names, or begins with it and a dot.
    """
    routes = None if app is None else Routes(app)
    for signal in sent_signals():
        if is_like(signal.name, pattern):
            yield _described(signal, routes)


def sent_signals() -> list[AsyncSignal]:
    """The signals that may be sent: this package's own ones are as long as somebody receives them."""
    return [signal for signal in names.known() if signal.receivers or not signal.name.startswith(_OWN)]


def signals_by_queue(app: Celery) -> dict[str, list[str]]:
    """The names of the signals that go to each queue, as far as Celery's router tells without a send."""
    found: dict[str, list[str]] = {}
    routes = Routes(app)
    for signal in sent_signals():
        queue = routes.queue_of(signal)
        if queue is not None:
            found.setdefault(queue, []).append(signal.name)
    return found


def some_of(names: Sequence[str], most: int = 3) -> str:
    """Names in words: the first ones, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_like(name: str, pattern: str | None) -> bool:
    """Whether a name is meant by a pattern; None means every name."""
    return pattern is None or fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _described(signal: AsyncSignal, routes: Routes | None) -> SignalInfo:
    defaults = settings.get()
    return SignalInfo(
        name=signal.name,
        aliases=signal.aliases,
        file=signal._definition.filename,
        line=signal._definition.lineno,
        queue=signal.queue if routes is None else routes.queue_of(signal),
        durability=signal.durability or defaults.durability,
        on_commit=defaults.on_commit if signal.on_commit is None else signal.on_commit,
        when_paused=signal.when_paused or defaults.when_paused,
        priority=signal.priority,
        expires=signal.expires,
        providing_args=None if signal.providing_args is None else tuple(sorted(signal.providing_args)),
        receivers=tuple(_receivers(signal)),
    )


def _receivers(signal: AsyncSignal) -> Iterator[ReceiverInfo]:
    for connected in signal._registry.connected(signal._keys):
        file, line = place_of(connected.receiver)
        own = connected.named.options.retry
        retry = signal.retry if own is None else own or None
        yield ReceiverInfo(
            name=connected.named.name,
            sender=connected.sender,
            file=file,
            line=line,
            is_async=connected.is_async,
            retry=None if retry is None else _retry(retry),
            once=connected.named.options.once,
        )


def _retry(retry: Retry) -> dict[str, Any]:
    return {**dataclasses.asdict(retry), "on": [error.__qualname__ for error in retry.on]}


def place_of(receiver: Receiver) -> tuple[str | None, int | None]:
    """The file and line where a receiver is defined: of what a decorator or a partial wraps, as far as it says so."""
    found: Any = receiver
    while isinstance(found, functools.partial):
        found = found.func
    with suppress(ValueError):  # it is wrapped in itself
        found = inspect.unwrap(found)
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    if code is None:
        code = getattr(vars(type(found)).get("__call__"), "__code__", None)
    return (None, None) if code is None else (code.co_filename, code.co_firstlineno)
