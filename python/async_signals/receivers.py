"""The receivers of a signal as messages name them, and the options that each was connected with.

Which receivers there are is in Django's own registry, ``Signal.receivers``. What
stands here is beside it: it holds for an entry of that registry as long as it
is the same entry.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from django.dispatch import Signal

from .compat import make_id, receiver_entry
from .retries import Retry

if TYPE_CHECKING:
    from .senders import SenderKeys

Receiver = Callable[..., Any]

_ANY_SENDER = make_id(None)


class ReceiverOptions(NamedTuple):
    """The options that a receiver was connected with.

    Attributes:
        retry: Its retries; None: the signal's; False: none.
        once: Whether it has one effect for each message, however often that is delivered.
    """

    retry: Retry | Literal[False] | None = None
    once: bool = False


#: Most receivers are connected without any.
DEFAULT_OPTIONS = ReceiverOptions()


class NamedReceiver(NamedTuple):
    """A receiver's name in messages, and its options."""

    name: str
    options: ReceiverOptions


class ConnectedReceiver(NamedTuple):
    """An entry of a signal's registry, for whoever asks what is connected.

    Attributes:
        receiver: The receiver itself.
        named: Its name and options.
        sender: The sender that it is connected for, as text; None: every sender.
        is_async: Whether it is a coroutine function.
    """

    receiver: Receiver
    named: NamedReceiver
    sender: str | None
    is_async: bool


class ReceiverRegistry:
    """The names and options of one signal's receivers, beside Django's own registry of them.

    Attributes:
        any_once: Whether any of them was connected with ``once=True``.
        set_aside: Entries of Django's registry that somebody has taken away all at once, and may put back.
    """

    __slots__ = ("_by_entry", "_signal", "any_once", "set_aside")

    def __init__(self, signal: Signal) -> None:
        self._signal = weakref.ref(signal)
        #: By a registry entry's key: its reference to the receiver, and the receiver's options. Most signals have none.
        self._by_entry: dict[Any, tuple[Any, ReceiverOptions]] = {}
        self.any_once = False
        self.set_aside: list[Any] = []

    def keep_options(self, receiver: Receiver, sender: Any, dispatch_uid: Any, options: ReceiverOptions) -> None:
        """Keeps the options of a receiver that was connected just now, unless another one has its place."""
        key = (dispatch_uid or make_id(receiver), make_id(sender))
        for entry_key, reference, _ in self._entries():
            if entry_key == key and _alive(reference) == receiver:
                self._change({**self._by_entry, key: (reference, options)})

    def forget_disconnected(self) -> None:
        """Forgets the options of receivers that are no longer connected."""
        if self._by_entry:
            self._change(self._by_entry)

    def _change(self, by_entry: dict[Any, tuple[Any, ReceiverOptions]]) -> None:
        entries = [*map(receiver_entry, self.set_aside), *self._entries()]
        present = {(key, id(reference)) for key, reference, _ in entries}
        kept = {key: value for key, value in by_entry.items() if (key, id(value[0])) in present}
        self._by_entry = kept
        self.any_once = any(options.once for _, options in kept.values())

    def names(self, sender: Any, live: list[Receiver], asynchronous: bool) -> list[NamedReceiver]:
        """The live receivers of a sender by their names in messages, in their order, with their options.

        Arguments:
            sender: As the registry has it.
            live: What the signal's ``_live_receivers`` gave, which other packages may have wrapped.
            asynchronous: Which of its two lists it is.
        """
        sender_id = make_id(sender)
        entries = [
            (receiver, self._named(key, reference, receiver))
            for key, reference, is_async in self._entries()
            if is_async == asynchronous and key[1] in (_ANY_SENDER, sender_id)
            if (receiver := _alive(reference)) is not None
        ]
        if len(entries) == len(live):
            return [named for _, named in entries]
        # Somebody connects or disconnects at this moment: each by itself, then.
        return [
            next(
                (named for other, named in entries if other == receiver),
                NamedReceiver(wire_name(receiver), DEFAULT_OPTIONS),
            )
            for receiver in live
        ]

    def live(self) -> list[Receiver]:
        """Every receiver that is alive, whichever sender it is for."""
        return [receiver for _, reference, _ in self._entries() if (receiver := _alive(reference)) is not None]

    def connected(self, keys: SenderKeys) -> list[ConnectedReceiver]:
        """Every receiver that is alive, whichever sender it is for, in the order in which they were connected."""
        labels = keys.labels()
        return [
            ConnectedReceiver(
                receiver,
                self._named(key, reference, receiver),
                None if key[1] == _ANY_SENDER else labels.get(key[1], "an object"),
                is_async,
            )
            for key, reference, is_async in self._entries()
            if (receiver := _alive(reference)) is not None
        ]

    def _named(self, key: Any, reference: Any, receiver: Receiver) -> NamedReceiver:
        uid = key[0]
        reference_then, options = self._by_entry.get(key, (None, None))
        if options is None or reference_then is not reference:
            options = DEFAULT_OPTIONS
        return NamedReceiver(uid if isinstance(uid, str) else wire_name(receiver), options)

    def _entries(self) -> list[tuple[Any, Any, bool]]:
        signal = self._signal()
        return [] if signal is None else [receiver_entry(entry) for entry in list(signal.receivers)]


def _alive(reference: Any) -> Any:
    """What an entry refers to, weakly or not; None if that is gone."""
    return reference() if isinstance(reference, weakref.ReferenceType) else reference


def is_method(receiver: Receiver) -> bool:
    """Whether it is a method of an object, by Django's own measure."""
    return hasattr(receiver, "__self__") and hasattr(receiver, "__func__")


def wire_name(receiver: Receiver) -> str:
    """How a message names a receiver that has no ``dispatch_uid`` of its own: its module and name."""
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    named = receiver if hasattr(receiver, "__qualname__") else type(receiver)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def receiver_name(receiver: Receiver) -> str:
    """How a log names a receiver, whatever kind of callable it is."""
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    name = getattr(receiver, "__qualname__", None) or type(receiver).__qualname__
    return str(name)
