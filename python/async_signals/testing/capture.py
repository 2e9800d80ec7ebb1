"""``capture_signals()``: sends that are kept and looked at, and run if the test wants them to."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

from asgiref.sync import sync_to_async

from async_signals import interceptors, transactions
from async_signals.dispatcher import AsyncSignal

from . import differences, running
from .checking import check_signals
from .commits import commits
from .contexts import ContextDecorator
from .differences import name_of
from .running import ReceiverRuns
from .snapshot import snapshot

if TYPE_CHECKING:
    from async_signals.sending import PendingSend


@dataclasses.dataclass(frozen=True, repr=False)
class CapturedSignal:
    """One send, as it was at that moment: what becomes of its arguments later changes nothing here.

    Attributes:
        signal: The signal.
        sender: Its sender.
        kwargs: Its named arguments.
        options: What ``options()`` was given.
        id: The id that the send returned.
        body: The body of its message, as it would have gone to the broker.
        sent_at: When it was sent.
    """

    signal: AsyncSignal
    sender: Any
    kwargs: dict[str, Any]
    options: dict[str, Any]
    id: str
    body: bytes = dataclasses.field(default=b"", compare=False)
    sent_at: datetime = dataclasses.field(default_factory=lambda: datetime.now(UTC), compare=False)

    def __repr__(self) -> str:
        given = f".options({_options(self.options)})" if self.options else ""
        return f"{name_of(self.signal)}{given}.send({differences.arguments(self.sender, self.kwargs)})"


class CapturedSignals(list[CapturedSignal]):
    """What was sent while ``capture_signals()`` was on, in order.

    Other threads may send meanwhile: what they send is here too.
    """

    def __init__(self, only: tuple[AsyncSignal, ...] = ()) -> None:
        super().__init__()
        self._only = only
        self._recorder = _Recorder(self, only)
        #: What was run, or is just being run; by the signals themselves, since ids may be given twice.
        self._begun: dict[int, CapturedSignal] = {}
        self._lock = threading.Lock()

    def of(self, signal: AsyncSignal) -> list[CapturedSignal]:
        """Those of one signal, in order."""
        self._check_captured(signal)
        return [each for each in self if each.signal is signal]

    def assert_sent(
        self,
        signal: AsyncSignal,
        /,
        sender: Any = ANY,
        times: int | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CapturedSignal:
        """Fails unless the signal was sent.

        Arguments:
            signal: The signal.
            sender: Its sender, if that counts.
            times: How often, exactly, from 1 on; None: at least once.
            options: Options that ``options()`` was given, others aside.
            kwargs: Arguments that it was sent with, others aside. Compared with ``==``: ``unittest.mock.ANY`` is equal
                to all. Look at arguments called ``times`` or ``options`` with ``of()``.

        Returns:
            The first send that is as expected.

        Raises:
            AssertionError: It was not sent like this (that often). The message shows what is nearest, and how it
                differs.
            ValueError: This capture is not for the signal, or ``times`` is not above 0.
        """
        __tracebackhide__ = True
        if times is not None and times < 1:
            raise ValueError(f"times is {times!r}; use a number above 0, or assert_not_sent()")
        wanted = _Expected(signal, sender, options or {}, kwargs)
        sends = self.of(signal)
        found = [each for each in sends if not wanted.differences(each)]
        if found and times in (None, len(found)):
            return found[0]
        raise AssertionError(self._why_not(wanted, sends, found, times))

    def assert_not_sent(
        self,
        signal: AsyncSignal,
        /,
        sender: Any = ANY,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Fails if the signal was sent like this; the arguments are those of ``assert_sent``.

        Raises:
            AssertionError: It was sent.
            TypeError: ``kwargs`` have a name that the signal's ``providing_args`` do not have, so that it would never
                fail.
            ValueError: This capture is not for the signal.
        """
        __tracebackhide__ = True
        wanted = _Expected(signal, sender, options or {}, kwargs)
        sends = self.of(signal)
        unknown = [name for name in kwargs if name not in _known_arguments(signal, sends, kwargs)]
        if unknown:
            raise TypeError(
                f"{name_of(signal)} is never sent with {', '.join(map(repr, unknown))}: its providing_args are "
                f"{', '.join(sorted(signal.providing_args or ())) or 'none'}"
            )
        found = [each for each in sends if not wanted.differences(each)]
        if found:
            listed = differences.listed(map(repr, found))
            raise AssertionError(f"{wanted} was sent {differences.times(len(found))}:\n{listed}")

    def assert_nothing_sent(self) -> None:
        """Fails if any signal was sent that this capture is for.

        Raises:
            AssertionError: Something was sent; the message lists it.
        """
        __tracebackhide__ = True
        if self:
            listed = differences.listed(map(repr, self))
            raise AssertionError(f"{len(self)} {'signal was' if len(self) == 1 else 'signals were'} sent:\n{listed}")

    def run(self, *, reraise: bool = True) -> ReceiverRuns:
        """Calls the receivers of what was captured and has not been run, each message once, as a worker would.

        Each message is read from the bytes that would have gone to the broker. A receiver that fails is tried again as
        its ``retry`` says, at once; ``countdown`` and ``eta`` put signals in order, and are not waited for. Hooks that
        receivers give to ``on_commit`` run in a ``TestCase`` too, after the receivers of their message. What receivers
        send meanwhile is captured behind the others, also when the capture has ended.

        Arguments:
            reraise: Whether a receiver's error is raised here, when all messages have run.

        Returns:
            The receivers that were called, with what they returned, and what would have become a dead letter.

        Raises:
            ExceptionGroup: Several receivers failed for good. A single one's own error is raised as it is.
            RuntimeError: It was called in an event loop: ``await arun()`` there.
        """
        __tracebackhide__ = True
        runs = self._run(None)
        if reraise:
            runs.raise_errors()
        return runs

    def drain(self, limit: int = 1000, *, reraise: bool = True) -> ReceiverRuns:
        """Repeats ``run()`` until nothing is left, also of what receivers have sent.

        Arguments:
            limit: How many messages are run at most.
            reraise: As of ``run()``: errors are raised when nothing is left.

        Raises:
            AssertionError: More than ``limit`` messages; the message names those that seem to send one another.
        """
        __tracebackhide__ = True
        runs = ReceiverRuns()
        while self._has_left() and runs.messages < limit:
            runs.extend_by(self._run(limit - runs.messages))
        left = self._left()
        if left:
            last = " → ".join(runs.last_signals)
            error = AssertionError(
                f"drain() has run {runs.messages} messages, which is its limit, and {len(left)} are left, the first "
                f"of them {left[0]!r}. The last that ran, each maybe sent by the one before: {last}"
            )
            if runs.errors:
                error.__cause__ = runs.errors[0]
            raise error
        if reraise:
            runs.raise_errors()
        return runs

    async def arun(self, *, reraise: bool = True) -> ReceiverRuns:
        """As ``run()``, from a coroutine."""
        __tracebackhide__ = True
        return await sync_to_async(self.run)(reraise=reraise)

    async def adrain(self, limit: int = 1000, *, reraise: bool = True) -> ReceiverRuns:
        """As ``drain()``, from a coroutine."""
        __tracebackhide__ = True
        return await sync_to_async(self.drain)(limit, reraise=reraise)

    def _run(self, most: int | None) -> ReceiverRuns:
        running.refuse_event_loop()
        with self._lock:
            left = sorted(self._left(), key=running.due)[:most]
            self._begun.update((id(each), each) for each in left)
        runs = ReceiverRuns()
        with self._recording():
            for each in left:
                running.run(each, runs)
        return runs

    def _left(self) -> list[CapturedSignal]:
        return [each for each in self if id(each) not in self._begun]

    def _has_left(self) -> bool:
        return any(id(each) not in self._begun for each in self)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        token = interceptors.add_recorder(self._recorder)
        try:
            yield
        finally:
            interceptors.remove(token)

    def _check_captured(self, signal: AsyncSignal) -> None:
        check_signals((signal,), "assert_sent")
        if not self._recorder.takes(signal):
            told = ", ".join(map(name_of, self._only))
            raise ValueError(f"this capture is only for {told}, and cannot know of {name_of(signal)}")

    def _why_not(
        self, wanted: _Expected, sends: list[CapturedSignal], found: list[CapturedSignal], times: int | None
    ) -> str:
        if found:
            lines = [f"{wanted} was sent {differences.times(len(found))}, not {differences.times(times or 1)}."]
        else:
            lines = [f"{wanted} was not sent{'' if times in (None, 1) else f' {differences.times(times or 1)}'}."]
        if sends and not found:
            nearest = min(sends, key=lambda each: len(wanted.differences(each)))
            which = "" if len(sends) == 1 else f"; nearest is number {sends.index(nearest) + 1} of them"
            lines.append(f"{name_of(wanted.signal)} was sent {differences.times(len(sends))}{which}:")
            lines += [f"  {line}" for line in wanted.differences(nearest)]
        lines += ["All that was sent:", differences.listed(map(repr, self))] if self else ["Nothing was sent at all."]
        lines += self._hints(wanted.signal)
        return "\n".join(lines)

    def _hints(self, signal: AsyncSignal) -> list[str]:
        if interceptors.is_muted(signal):
            return [f"{name_of(signal)} is muted, and what is muted is not captured."]
        waiting = [(send, is_open) for send, is_open in transactions.waiting() if self._recorder.waits_for(send)]
        hints = []
        number = sum(send.signal is signal for send, is_open in waiting if is_open)
        if number:
            hints.append(f"{number} more waits for the commit of a transaction that is still open.")
        number = sum(send.signal is signal for send, is_open in waiting if not is_open)
        if number:
            hints.append(
                f"{number} more waits for a commit that a TestCase never makes: use capture_signals(commit=True), or "
                f"captureOnCommitCallbacks(execute=True) around the code that sends."
            )
        return hints


class _Recorder:
    """Puts the sends of some signals, or of all, into a list."""

    def __init__(self, captured: CapturedSignals, only: tuple[AsyncSignal, ...]) -> None:
        self._captured = captured
        self._only = only
        self._published: set[str] = set()

    def takes(self, signal: AsyncSignal) -> bool:
        return not self._only or any(each is signal for each in self._only)

    def record(self, send: PendingSend, sender: Any, named: dict[str, Any], body: bytes) -> Callable[[], None]:
        captured = CapturedSignal(
            send.signal, snapshot(sender), snapshot(named), dict(send.options), send.id, body, datetime.now(UTC)
        )

        def publish() -> None:
            self._published.add(send.id)
            self._captured.append(captured)

        return publish

    def waits_for(self, send: PendingSend) -> bool:
        """Whether a send will be in the list when its transaction commits, and is not yet."""
        return send.recorder is self and send.id not in self._published


class _Expected:
    """What an assertion is about."""

    def __init__(self, signal: AsyncSignal, sender: Any, options: dict[str, Any], named: dict[str, Any]) -> None:
        self.signal = signal
        self._sender = sender
        self._options = options
        self._named = named

    def differences(self, sent: CapturedSignal) -> list[str]:
        """How a send of the signal differs, in lines; none: it is as expected."""
        lines = [] if self._sender is ANY else differences.between(self._sender, sent.sender, "sender")
        for name, expected in self._named.items():
            lines += differences.between(expected, sent.kwargs.get(name, differences.MISSING), name)
        for name, expected in self._options.items():
            actual = sent.options.get(name, differences.MISSING)
            lines += differences.between(expected, actual, f"options({name})")
        return lines

    def __str__(self) -> str:
        told = [] if self._sender is ANY else [f"sender={differences.shown(self._sender)}"]
        told += [f"{name}={differences.shown(value)}" for name, value in self._named.items()]
        told += [f"options({_options(self._options)})"] if self._options else []
        return f"{name_of(self.signal)}{' with ' if told else ''}{', '.join(told)}"


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={differences.shown(value)}" for name, value in options.items())


def _known_arguments(signal: AsyncSignal, sends: list[CapturedSignal], asked: dict[str, Any]) -> set[str]:
    """The names that the signal may be sent with, as far as that is known."""
    if signal.providing_args is None:
        return set(asked)
    return set(signal.providing_args).union(*(each.kwargs for each in sends))


class capture_signals(ContextDecorator[CapturedSignals]):  # noqa: N801 - written as a function is, like Django's own
    """Records what is published, in order, instead of publishing it.

    A signal that is sent in a transaction is recorded after the commit, and never if that is undone. What could not
    be sent raises here as it would outside. It holds for the whole process, for each thread; of captures within one
    another the inner one records.

    Arguments:
        only: The signals to record; others go their usual way. None given: all of them.
        commit: Whether hooks that ``on_commit`` is given in the block run at its end, in a ``TestCase``, where no
            transaction is ever committed. They are recorded then, and so after the block.

    Raises:
        TypeError: Something else than an ``AsyncSignal`` was given.

    >>> from async_signals.signals import request_finished
    >>> with capture_signals() as sent:
    ...     _ = request_finished.send(None, path="/")
    >>> sent[0].kwargs
    {'path': '/'}
    >>> sent.assert_sent(request_finished, path="/").options
    {}
    """

    def __init__(self, *only: AsyncSignal, commit: bool = False) -> None:
        super().__init__()
        self._only = check_signals(only, "capture_signals")
        self._commit = commit

    @contextmanager
    def _context(self) -> Iterator[CapturedSignals]:
        captured = CapturedSignals(self._only)
        with captured._recording(), commits() if self._commit else nullcontext():
            yield captured
