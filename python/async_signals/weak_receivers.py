"""Receivers that were connected weakly, as Django's ``connect`` does unless told otherwise: where, and which are gone.

A receiver that nothing else refers to is gone as soon as it is connected, without
a word of Django's: a function within a function, a lambda, a ``partial``, a
method of an object that nobody keeps. What it was, and where it was connected,
is noted as it is connected, since nothing can be asked of it afterwards.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Hashable
from typing import Any, NamedTuple

from .compat import make_id, receiver_entry
from .receivers import Receiver, is_method, wire_name

#: How many receivers that are gone are remembered of one signal: a program may connect and lose them for ever.
_MOST_GONE = 16
#: How many calls are followed from ``connect`` to the code that asked for it.
_MOST_CALLS = 16
#: Whose code is not where a receiver was connected.
_CONNECTING = (__package__, "django.dispatch")


class WeakReceiver(NamedTuple):
    """What is known of a receiver that was connected weakly.

    Attributes:
        name: Its module and name.
        kind: What it was, in words.
        is_temporary: Whether nothing that lasts need refer to one of its kind.
        filename, lineno: Where it was connected.
        sender: Django's id of the sender that it was connected for.
        uid: The key of its ``dispatch_uid``; None: it has none.
        module: The name of the module that defines it.
        run: What tells one run of that module from the next.
    """

    name: str
    kind: str
    is_temporary: bool
    filename: str
    lineno: int
    sender: Hashable
    uid: Hashable | None
    module: str
    run: Any

    @property
    def where(self) -> str:
        """The line that connected it."""
        return f"{self.filename}:{self.lineno}"

    @property
    def place(self) -> tuple[Hashable, ...]:
        """Equal for receivers of one name that one line has connected for one sender."""
        return self.name, self.filename, self.lineno, self.sender


class _Reference(weakref.ref[Any]):
    """Refers to a receiver, or to the object of a method, and knows the key of Django's entry."""

    __slots__ = ("key", "noted")

    key: Hashable
    noted: WeakReceiver


class WeakReceivers:
    """Those of one signal. Nothing here keeps a receiver alive, or the signal."""

    __slots__ = ("__weakref__", "_connected", "_gone", "_is_gone")

    def __init__(self) -> None:
        #: By the key of Django's entry.
        self._connected: dict[Hashable, _Reference] = {}
        #: By their places.
        self._gone: dict[Hashable, WeakReceiver] = {}
        mine = weakref.ref(self)

        def is_gone(reference: Any) -> None:
            # Called in the middle of anything, by whoever drops the last reference.
            found = mine()
            if found is not None:
                found._move(reference)

        self._is_gone = is_gone

    def note(self, receiver: Any, sender: Any, dispatch_uid: Any, receivers: list[tuple[Any, ...]]) -> None:
        """Notes a receiver that was connected just now.

        Arguments:
            sender: As Django's registry has it.
            receivers: That registry, which holds it last unless another one has its place.
        """
        key = (dispatch_uid or make_id(receiver), make_id(sender))
        last = receivers[-1:]
        if not last or receiver_entry(last[0])[0] != key or not _refers(receiver_entry(last[0])[1], receiver):
            return
        noted = _describe(receiver, key, bool(dispatch_uid))
        if noted.uid is not None:  # it stands for whatever was connected under that name before
            self._forget_gone(noted.uid)
        # As in Django, it is the object of a method that is referred to.
        reference = _Reference(receiver.__self__ if is_method(receiver) else receiver, self._is_gone)
        reference.key, reference.noted = key, noted
        self._connected[key] = reference

    def forget(self, receiver: Receiver | None, sender: Any, dispatch_uid: Any) -> None:
        """Forgets a receiver that was disconnected."""
        key = (dispatch_uid or make_id(receiver), make_id(sender))
        self._connected.pop(key, None)
        if dispatch_uid:
            self._forget_gone(key)

    def forget_dropped(self, receivers: list[tuple[Any, ...]]) -> None:
        """Forgets what is no longer in Django's registry: Django 6 drops a receiver whose sender is gone."""
        there = {receiver_entry(entry)[0] for entry in receivers}
        for key in [key for key in list(self._connected) if key not in there]:
            self._connected.pop(key, None)

    def gone(self) -> list[WeakReceiver]:
        """Those that are gone, and that nothing has taken the place of."""
        there = {reference.noted.place for reference in list(self._connected.values())}
        return [
            noted
            for noted in list(self._gone.values())
            # A module that was run anew has connected anew what it still connects.
            if noted.place not in there and _run_of(noted.module) is noted.run
        ]

    def has_temporary(self) -> bool:
        """Whether any is there still that may be garbage already, which nobody has collected."""
        return any(reference.noted.is_temporary for reference in list(self._connected.values()))

    def _move(self, reference: _Reference) -> None:
        if self._connected.get(reference.key) is not reference:
            return
        del self._connected[reference.key]
        if len(self._gone) < _MOST_GONE:
            self._gone[reference.noted.place] = reference.noted

    def _forget_gone(self, uid: Hashable) -> None:
        for place, noted in list(self._gone.items()):
            if noted.uid == uid:
                self._gone.pop(place, None)


def _refers(reference: Any, receiver: Receiver) -> bool:
    return isinstance(reference, weakref.ReferenceType) and bool(reference() == receiver)


def _describe(receiver: Receiver, key: tuple[Any, Any], has_uid: bool) -> WeakReceiver:
    kind, is_temporary = _kind(receiver)
    filename, lineno = _connected_at()
    function: Any = receiver
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__") and not is_method(function):
        function = type(function)
    module = str(getattr(function, "__module__", None))
    uid = key if has_uid else None
    return WeakReceiver(wire_name(receiver), kind, is_temporary, filename, lineno, key[1], uid, module, _run_of(module))


def _kind(receiver: Receiver) -> tuple[str, bool]:
    """What a receiver is, in words, and whether nothing that lasts need refer to such a one."""
    if isinstance(receiver, functools.partial):
        return "a functools.partial", True
    if is_method(receiver):
        return "a method of an object", True
    name = getattr(receiver, "__qualname__", None)
    if name is None:
        return "a callable object", True
    if name.endswith("<lambda>"):
        return "a lambda", True
    if "<locals>" in name:
        return "a function within a function", True
    return "a function", False


def _connected_at() -> tuple[str, int]:
    """The file and line of the code that connects a receiver just now."""
    frame = sys._getframe(1)
    for _ in range(_MOST_CALLS):
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_back is None or not any(module == own or module.startswith(f"{own}.") for own in _CONNECTING):
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _run_of(module: str) -> Any:
    """What tells a run of a module from the next: ``reload`` gives it another specification, as does a new import."""
    try:
        return getattr(sys.modules.get(module), "__spec__", None)
    except Exception:  # a lazy module may do anything when it is touched
        return None
