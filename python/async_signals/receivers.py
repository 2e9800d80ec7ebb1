"""The receivers of a signal as messages know them, and what was said of each as it was connected.

Which receivers there are is in Django's own registry, ``Signal.receivers``. What
stands here is beside it: it holds for an entry of that registry as long as it
is the same entry.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from django.dispatch import Signal, dispatcher

from .retries import Retry

Receiver = Callable[..., Any]

#: How Django tells receivers and senders apart in its registry.
_identity: Callable[[Any], Any] = vars(dispatcher)["_make_id"]
_ANY_SENDER = _identity(None)


class Said(NamedTuple):
    """What was said of a receiver as it was connected.

    Attributes:
        retry: Its retries; None: the signal's; False: none.
        once: Whether it has one effect for each message, however often that is delivered.
    """

    retry: Retry | Literal[False] | None = None
    once: bool = False


#: Of most receivers nothing was said.
NOTHING_SAID = Said()


class Named(NamedTuple):
    """A receiver as a message would name it."""

    name: str
    said: Said


class Sayings:
    """What was said of the receivers of one signal. Most signals have nothing here.

    Attributes:
        once: Whether any of them has one effect for each message.
        retry: Whether any of them has retries of its own.
    """

    __slots__ = ("_by_entry", "_signal", "once", "retry")

    def __init__(self, signal: Signal) -> None:
        self._signal = weakref.ref(signal)
        #: By a registry entry's key: its reference to the receiver, and what was said.
        self._by_entry: dict[Any, tuple[Any, Said]] = {}
        self.once = self.retry = False

    def connected(self, receiver: Receiver, sender: Any, dispatch_uid: Any, said: Said) -> None:
        """Keeps what was said of a receiver that is in the registry by now, unless another one has its place."""
        key = (dispatch_uid or _identity(receiver), _identity(sender))
        for entry_key, reference, _ in self._entries():
            if entry_key == key and _alive(reference) == receiver:
                self._change({**self._by_entry, key: (reference, said)})

    def disconnected(self) -> None:
        """Forgets what was said of receivers that are no longer in the registry."""
        if self._by_entry:
            self._change(self._by_entry)

    def _change(self, by_entry: dict[Any, tuple[Any, Said]]) -> None:
        present = {key: reference for key, reference, _ in self._entries()}
        kept = {key: value for key, value in by_entry.items() if present.get(key) is value[0]}
        self._by_entry = kept
        self.once = any(said.once for _, said in kept.values())
        self.retry = any(said.retry for _, said in kept.values())

    def names(self, sender: Any, live: list[Receiver], asynchronous: bool) -> list[Named]:
        """What messages call the live receivers of a sender, in their order, and what was said of them.

        Arguments:
            sender: As the registry has it.
            live: What the signal's ``_live_receivers`` gave, which other packages may have wrapped.
            asynchronous: Which of its two lists it is.
        """
        sender_id = _identity(sender)
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
            next((named for other, named in entries if other == receiver), Named(wire_name(receiver), NOTHING_SAID))
            for receiver in live
        ]

    def live(self) -> list[Receiver]:
        """Every receiver that is still there."""
        return [receiver for _, reference, _ in self._entries() if (receiver := _alive(reference)) is not None]

    def _named(self, key: Any, reference: Any, receiver: Receiver) -> Named:
        uid = key[0]
        reference_then, said = self._by_entry.get(key, (None, None))
        if said is None or reference_then is not reference:
            said = NOTHING_SAID
        return Named(uid if isinstance(uid, str) else wire_name(receiver), said)

    def _entries(self) -> list[Any]:
        signal = self._signal()
        return [] if signal is None else list(signal.receivers)


def _alive(reference: Any) -> Any:
    """What an entry refers to, weakly or not; None if that is gone."""
    return reference() if isinstance(reference, weakref.ReferenceType) else reference


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
