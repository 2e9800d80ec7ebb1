"""Wire names: how a message says which signal it is, and how a worker finds it.

A name is ``module.qualified_name``. Nothing is ever imported because a message
named it: only signals that exist already are found.
"""

from __future__ import annotations

import sys
import threading
import weakref
from types import FrameType
from typing import TYPE_CHECKING

from .errors import DuplicateSignalName, NoWireName

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

_lock = threading.RLock()
#: Signals by name; one that nobody refers to any more is gone from it.
_by_name: weakref.WeakValueDictionary[str, AsyncSignal] = weakref.WeakValueDictionary()
#: Signals whose name was not asked for yet.
_unnamed: weakref.WeakSet[AsyncSignal] = weakref.WeakSet()


class Definition:
    """Where a signal was constructed."""

    __slots__ = ("filename", "instruction", "lineno", "module")

    def __init__(self, frame: FrameType) -> None:
        self.module: str = frame.f_globals.get("__name__", "__main__")
        self.filename = frame.f_code.co_filename
        self.lineno = frame.f_lineno
        self.instruction = frame.f_lasti

    @classmethod
    def of_caller(cls, signal: AsyncSignal) -> Definition:
        """The first frame that is not a constructor of the signal itself."""
        frame = sys._getframe(1)
        while frame.f_back is not None and (
            (frame.f_globals.get("__package__") == __package__ and frame.f_globals.get("__name__") in _CONSTRUCTORS)
            or (frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is signal)
        ):
            frame = frame.f_back
        return cls(frame)

    def is_same(self, other: Definition) -> bool:
        """Whether both stand at the same place of the same source."""
        return (self.filename, self.lineno, self.instruction) == (other.filename, other.lineno, other.instruction)

    def __str__(self) -> str:
        return f"{self.filename}:{self.lineno}"


_CONSTRUCTORS = (__name__, f"{__package__}.dispatcher")


def register(signal: AsyncSignal) -> None:
    """Makes a new signal known, under its name if it has one yet."""
    with _lock:
        if signal._name is None:
            _unnamed.add(signal)
        else:
            _claim(signal, signal._name)
        for alias in signal.aliases:
            _claim(signal, alias)


def attribute_of(owner: type, attribute: str) -> str | None:
    """The name of a class attribute; None where another process could not find the class."""
    if owner.__module__ == "__main__" or "<locals>" in owner.__qualname__:
        return None
    return f"{owner.__module__}.{owner.__qualname__}.{attribute}"


def named(signal: AsyncSignal, name: str) -> None:
    """Gives a signal the name that was found for it, if it has none."""
    with _lock:
        if signal._name is None:
            _claim(signal, name)
            signal._name = name
            _unnamed.discard(signal)


def name_of(signal: AsyncSignal) -> str:
    """The signal's wire name, found in its module if it was not given.

    Raises:
        NoWireName: There is none.
    """
    if signal._name is not None:
        return signal._name
    name = _discover(signal)
    if name is None:
        raise NoWireName(
            f"the AsyncSignal made at {signal._definition} has no name under which a worker could find it"
            f"{_why(signal)}; assign it to a variable of a module that the worker imports too, or give it a name="
        )
    named(signal, name)
    return name


def find(name: str) -> AsyncSignal | None:
    """The signal that has this name or alias, if this process has it."""
    signal = _by_name.get(name)
    if signal is None:
        with _lock:
            for candidate in list(_unnamed):
                discovered = _discover(candidate)
                if discovered is not None:
                    named(candidate, discovered)
            signal = _by_name.get(name)
    return signal


def known() -> list[AsyncSignal]:
    """Every signal that has a name, in the order of names."""
    with _lock:
        for candidate in list(_unnamed):
            discovered = _discover(candidate)
            if discovered is not None:
                named(candidate, discovered)
        return [signal for _, signal in sorted(_by_name.items())]


def _discover(signal: AsyncSignal) -> str | None:
    module = signal._definition.module
    if module == "__main__":
        return None
    namespace = getattr(sys.modules.get(module), "__dict__", {})
    for attribute, value in list(namespace.items()):
        if value is signal:
            return f"{module}.{attribute}"
    return None


def _why(signal: AsyncSignal) -> str:
    module = signal._definition.module
    if module == "__main__":
        return ": it stands in the script that was run, which a worker knows by another name"
    return f": no variable of module {module!r} holds it"


def _claim(signal: AsyncSignal, name: str) -> None:
    other = _by_name.get(name)
    if other is not None and other is not signal and not _replaces(signal, other, name):
        raise DuplicateSignalName(
            f"two signals have the name {name!r}: one made at {other._definition}, one at {signal._definition}; "
            f"give one of them another name="
        )
    _by_name[name] = signal


def _replaces(signal: AsyncSignal, other: AsyncSignal, name: str) -> bool:
    """Whether ``signal`` is what ``other`` became when its module was run again."""
    mine, theirs = signal._definition, other._definition
    if mine.module != theirs.module:
        return False
    if mine.is_same(theirs):
        return True
    # The module was edited and reloaded: the old one is no longer where its name says.
    module = sys.modules.get(mine.module)
    attribute = name.removeprefix(f"{mine.module}.")
    if name == attribute or "." in attribute:
        return other not in vars(module).values() if module is not None else True
    return getattr(module, attribute, None) is not other
