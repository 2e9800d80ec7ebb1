"""Which sender is which: by identity, or by equal label."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

from ._native import sender_label


class _Token:
    """Stands for every sender of one label, so that Django's comparison by identity holds."""

    __slots__ = ("__weakref__", "label")

    def __init__(self, label: Hashable) -> None:
        self.label = label


class SenderKeys:
    """The labels that receivers of one signal were connected with."""

    def __init__(self) -> None:
        self._tokens: dict[Hashable, _Token] = {}
        self._lock = threading.Lock()

    def for_connect(self, sender: Any) -> Any:
        """What stands for the sender in Django's registry."""
        if sender is None:
            return None
        label = sender_label(sender)
        if label is None:
            return sender
        with self._lock:
            return self._tokens.setdefault(label, _Token(label))

    def for_lookup(self, sender: Any) -> Any:
        """The same, for a sender that may never have been connected with."""
        if sender is None or not self._tokens:
            return sender
        label = sender_label(sender)
        return sender if label is None else self._tokens.get(label, sender)


class SenderCache(dict[Any, Any]):
    """Django's cache of receivers by sender, for senders that cannot be weakly referenced too.

    Only those are kept that a receiver was connected with: they are few, while a
    program may send from any number of others.
    """

    def __init__(self, keys: SenderKeys) -> None:
        super().__init__()
        self._keys = keys

    def get(self, sender: Any, default: Any = None) -> Any:
        key = sender if sender is None or type(sender) is _Token else self._keys.for_lookup(sender)
        return super().get(key, default) if key is None or type(key) is _Token else default

    def __setitem__(self, sender: Any, receivers: Any) -> None:
        if sender is None or type(sender) is _Token:
            super().__setitem__(sender, receivers)
