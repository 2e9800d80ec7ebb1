"""Which sender is which: by identity, or by equal label.

A label is what a sender is on the wire. Django compares senders by identity, so
one token stands in its registry for all senders of one label.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from . import compat
from ._native import sender_label

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

#: Held for moments only; what a garbage collection calls may come back here in the same thread.
_lock = threading.RLock()


class _Token:
    """Stands for every sender of one label.

    Attributes:
        classes: The classes that it stands for, weakly. None: it stands for a value as well, a text, a number or a
            model's row, which is not gone because an object is that was equal to it.
    """

    __slots__ = ("__weakref__", "classes", "label")

    def __init__(self, label: Hashable) -> None:
        self.label = label
        self.classes: list[weakref.ref[type]] | None = []

    def add(self, sender: Any, is_gone: Callable[[Any], None]) -> None:
        """Has it stand for one more sender; ``is_gone`` is called when a class is gone."""
        if not isinstance(sender, type):
            self.classes = None
        elif self.classes is not None and not any(reference() is sender for reference in self.classes):
            self.classes.append(weakref.ref(sender, is_gone))

    def is_needed(self) -> bool:
        """Whether anything that it stands for is still there."""
        return self.classes is None or any(reference() is not None for reference in self.classes)


class SenderKeys:
    """The labels that receivers of one signal are connected with.

    A token is kept for as long as an entry of Django's registry names it: Django
    itself knows a sender by its id alone (5.2), or refers to it weakly (6.0).
    """

    def __init__(self, signal: AsyncSignal) -> None:
        self._signal = weakref.ref(signal)
        #: By label; also what is only about to be connected.
        self._tokens: weakref.WeakValueDictionary[Hashable, _Token] = weakref.WeakValueDictionary()
        self._kept: set[_Token] = set()
        #: References to classes that are gone, since it was looked last.
        self._gone: list[Any] = []

    def for_connect(self, sender: Any) -> Any:
        """What stands for the sender in Django's registry; to be handed to ``keep`` when it is there."""
        label = None if sender is None else sender_label(sender)
        if label is None:
            return sender
        with _lock:
            token = self._tokens.get(label)
            if token is None:
                token = self._tokens[label] = _Token(label)
            token.add(sender, self._gone.append)
        return token

    def keep(self, key: Any) -> None:
        """Keeps what stands for a sender for as long as a receiver is connected with it."""
        if type(key) is _Token:
            with _lock:
                self._kept.add(key)

    def for_lookup(self, sender: Any) -> Any:
        """As ``for_connect``, for a sender that may never have been connected with."""
        if sender is None or not self._kept:
            return sender
        signal = self._signal()
        if self._gone or (signal is not None and compat.has_dead_receivers(signal)):
            self.release()
        label = sender_label(sender)
        return sender if label is None else self._tokens.get(label, sender)

    def labels(self) -> dict[int, str]:
        """What receivers are connected for, as text, by the ids that stand for it in Django's registry."""
        with _lock:
            return {compat.make_id(token): _shown(token.label) for token in self._kept}

    def release(self) -> None:
        """Forgets what no live receiver is connected with any more."""
        with _lock:
            self._gone.clear()
            signal = self._signal()
            known = [] if signal is None else [*signal.receivers, *signal._registry.set_aside]
            entries = map(compat.receiver_entry, known)
            connected = {key[1] for key, reference, _ in entries if not _is_dead(reference)}
            # Under Django 6 an entry goes with its sender; under 5.2 it stays, and its id must be nobody else's.
            self._kept = {
                token
                for token in self._kept
                if compat.make_id(token) in connected and (token.is_needed() or not compat.FORGETS_DEAD_SENDERS)
            }


def _is_dead(reference: Any) -> bool:
    return isinstance(reference, weakref.ReferenceType) and reference() is None


def _shown(label: Hashable) -> str:
    """A label as people write it: a class by its name, a text with its quotes."""
    value = json.loads(label) if isinstance(label, bytes) else label
    if isinstance(value, dict) and isinstance(value.get("__value__"), list):
        return " ".join(str(part) for part in value["__value__"][1:])
    return repr(value)


class SenderCache(weakref.WeakKeyDictionary[_Token, Any]):
    """Django's cache of receivers by sender, for senders that cannot be weakly referenced too.

    Only those are in it that a receiver was connected with: they are few, while a
    program may send from any number of others.
    """

    def __init__(self, keys: SenderKeys) -> None:
        super().__init__()
        self._keys = keys
        self._nobody = _Token(None)

    def _key(self, sender: Any) -> Any:
        if sender is None:
            return self._nobody
        return sender if type(sender) is _Token else self._keys.for_lookup(sender)

    def get(self, sender: Any, default: Any = None) -> Any:
        key = self._key(sender)
        return super().get(key, default) if type(key) is _Token else default

    def __setitem__(self, sender: Any, receivers: Any) -> None:
        key = self._key(sender)
        if type(key) is _Token:
            super().__setitem__(key, receivers)


def _after_fork_in_child() -> None:
    global _lock
    # Another thread of the parent may have held it, and is not here to let it go.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
