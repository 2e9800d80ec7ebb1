"""Who takes sends in the place of Celery: tests that capture signals, and whoever has muted them.

A send asks once whether there is anybody at all, and only then for whom.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from . import compat

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal
    from .sending import PendingSend


class Recorder(Protocol):
    """Takes the sends of some signals, in the place of Celery."""

    def takes(self, signal: AsyncSignal) -> bool:
        """Whether the sends of a signal are for it."""

    def record(self, send: PendingSend, sender: Any, named: dict[str, Any], body: bytes) -> Callable[[], None]:
        """Takes note of a send that is encoded just now.

        Arguments:
            body: The body of its message.

        Returns:
            What is called when it would be published: at once, or after the commit.
        """


class Mute:
    """Has the sends of some signals do nothing.

    Arguments:
        only: The signals; none: all of them.
    """

    def __init__(self, only: tuple[AsyncSignal, ...]) -> None:
        self._only = only

    def takes(self, signal: AsyncSignal) -> bool:
        return not self._only or any(each is signal for each in self._only)


#: Those that there are: mutes first, then recorders from the innermost outwards. Empty outside tests. Always this very
#: list, so that a send has it at hand.
active: list[Mute | _EmptiedSignals | Recorder] = []
_lock = threading.RLock()
#: In the order in which they were added, by a token of their own: one may be there several times.
_mutes: dict[object, Mute | _EmptiedSignals] = {}
_recorders: dict[object, Recorder] = {}


def add_mute(mute: Mute | _EmptiedSignals) -> object:
    """Adds one; returns the token that takes it away again, in whatever order that happens."""
    token = object()
    with _lock:
        _mutes[token] = mute
        _update()
    return token


def add_recorder(recorder: Recorder) -> object:
    """Adds one, which goes before those that are there; returns its token."""
    token = object()
    with _lock:
        _recorders[token] = recorder
        _update()
    return token


def remove(token: object) -> None:
    """Takes away what was added under this token, if it is still there."""
    with _lock:
        _mutes.pop(token, None)
        _recorders.pop(token, None)
        _update()


def _update() -> None:
    # In one step: other threads may be sending.
    active[:] = [*_mutes.values(), *reversed(_recorders.values())]


class Muted(Exception):
    """Sends of this signal do nothing."""


def recorder_of(signal: AsyncSignal) -> Recorder | None:
    """Who takes the sends of a signal in the place of Celery; None: nobody does.

    Raises:
        Muted: They are not to be sent at all.
    """
    for each in tuple(active):
        if each.takes(signal):
            if isinstance(each, (Mute, _EmptiedSignals)):
                raise Muted
            return each
    return None


def is_muted(signal: AsyncSignal) -> bool:
    """Whether sends of a signal do nothing."""
    return any(each.takes(signal) for each in tuple(_mutes.values()))


# Signals that somebody has muted by taking their receivers away, as factory_boy's ``mute_signals`` does.

#: How many entries a signal keeps that were taken away and not put back; the newest, where there are more.
_MOST_SET_ASIDE = 10_000


class _EmptiedSignals:
    """Mutes each signal from which somebody has taken all receivers by assigning it an empty list.

    It stays muted as long as that list is in place and empty.
    """

    def __init__(self) -> None:
        self._lists: weakref.WeakKeyDictionary[AsyncSignal, list[Any]] = weakref.WeakKeyDictionary()
        self._token: object = None

    def takes(self, signal: AsyncSignal) -> bool:
        emptied = self._lists.get(signal)
        return emptied is not None and signal.receivers is emptied and not emptied

    def add(self, signal: AsyncSignal, emptied: list[Any]) -> None:
        with _lock:
            self._lists[signal] = emptied
            if self._token is None:
                self._token = add_mute(self)

    def forget(self, signal: AsyncSignal) -> None:
        with _lock:
            self._lists.pop(signal, None)
            if not self._lists and self._token is not None:
                remove(self._token)
                self._token = None


_emptied = _EmptiedSignals()


def receivers_replaced(signal: AsyncSignal, before: list[Any], after: list[Any], set_aside: list[Any]) -> list[Any]:
    """Is told that another list is about to become a signal's ``receivers``.

    Django itself only ever drops receivers that are gone, or whose sender is. Whoever drops live ones with an empty
    list mutes the signal, and may put them back.

    Arguments:
        set_aside: The entries that were taken away before and not put back.

    Returns:
        The entries that are taken away from now on, whose options are to be kept.
    """
    kept = {id(entry) for entry in after}
    taken = set_aside if after else [*set_aside, *before]
    missing = [entry for entry in taken if id(entry) not in kept and _is_live(entry)]
    if missing and not after:
        _emptied.add(signal, after)
    else:
        _emptied.forget(signal)
    return missing[-_MOST_SET_ASIDE:]


def _is_live(entry: Any) -> bool:
    # Django 6 refers to the sender too, and drops the entry when that is gone.
    references = [compat.receiver_entry(entry)[1], *entry[2:3]]
    return not any(isinstance(each, weakref.ReferenceType) and each() is None for each in references)


def _after_fork_in_child() -> None:
    global _lock
    # Another thread of the parent may have held it, and is not here to let it go.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
