"""Wire names: how a message says which signal it is, and how a worker finds it.

A name is ``module.qualified_name``. Nothing is ever imported because a message
named it: only signals that exist already are found.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from types import FrameType
from typing import TYPE_CHECKING, Any

from .errors import DuplicateSignalName, NoWireName

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

_lock = threading.RLock()
#: Signals by name; one that nobody refers to any more is gone from it.
_by_name: weakref.WeakValueDictionary[str, AsyncSignal] = weakref.WeakValueDictionary()
#: Signals whose name was not asked for yet.
_unnamed: weakref.WeakSet[AsyncSignal] = weakref.WeakSet()


#: How many calls are followed from a signal's constructor to the module that asked for it.
_MOST_CALLS = 16


class Definition:
    """Where a signal was constructed.

    Attributes:
        filename, lineno: The call of the constructor.
        modules: The module that called it, then those whose code called that one, up to a module that is just being
            run: helpers make signals for variables of modules that call them.
        found_as: The variable that gave the signal its name; None: it was given one, or has none yet.
    """

    __slots__ = ("_calls", "filename", "found_as", "lineno", "modules")

    def __init__(self, frame: FrameType) -> None:
        self.filename = frame.f_code.co_filename
        self.lineno = frame.f_lineno
        self.found_as: str | None = None
        modules: dict[str, None] = {}
        calls: list[tuple[str, int, int]] = []
        caller: FrameType | None = frame
        while caller is not None and len(calls) < _MOST_CALLS:
            modules.setdefault(str(caller.f_globals.get("__name__", "__main__")))
            calls.append((caller.f_code.co_filename, caller.f_lineno, caller.f_lasti))
            if caller.f_code.co_name == "<module>":
                break
            caller = caller.f_back
        self.modules = tuple(modules)
        self._calls = tuple(calls)

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
        """Whether both stand at the same place of the same source, reached by the same calls."""
        return self._calls == other._calls

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
            signal._name = signal._definition.found_as = name
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
        [holders] = _holders([signal])
        if len(holders) != 1:
            raise NoWireName(
                f"the AsyncSignal made at {signal._definition} has no name under which a worker could find it: "
                f"{_why(signal, holders)}; assign it to a variable of a module that the worker imports too, or give "
                f"it a name="
            )
        [name] = holders
    named(signal, name)
    return name


def find(name: str) -> AsyncSignal | None:
    """The signal that has this name or alias, if this process has it."""
    signal = _by_name.get(name)
    if signal is None:
        _name_what_can_be()
        signal = _by_name.get(name)
    if signal is None:
        signal = _unnamed_at(name)
    return signal


def known() -> list[AsyncSignal]:
    """Every signal that has a name, once, in the order of names."""
    _name_what_can_be(everywhere=True)
    by_name = {signal._name: signal for signal in list(_by_name.values()) if signal._name is not None}
    return [signal for _, signal in sorted(by_name.items())]


def unnamed() -> list[AsyncSignal]:
    """Every signal that has no name, or not the one that its variable would give it, since another signal has that."""
    _name_what_can_be(everywhere=True)
    return [signal for signal in list(_unnamed) if signal._name is None]


def _name_what_can_be(everywhere: bool = False) -> None:
    """Gives signals their names that have none yet.

    Arguments:
        everywhere: Whether to look for those also that stand in none of the modules that made them.
    """
    with _lock:
        unnamed = list(_unnamed)
        found = {signal: name for signal in unnamed if (name := _discover(signal)) is not None}
        if everywhere:
            rest = [signal for signal in unnamed if signal not in found]
            found.update({signal: held[0] for signal, held in zip(rest, _holders(rest), strict=True) if len(held) == 1})
        for signal, name in found.items():
            # Of two with one name the one says so that is sent; the others are not to suffer from it.
            with contextlib.suppress(DuplicateSignalName):
                named(signal, name)


def _discover(signal: AsyncSignal) -> str | None:
    """The variable that holds a signal, in one of the modules whose code made it."""
    for module in signal._definition.modules:
        if module != "__main__":
            for attribute, value in _namespace(module).items():
                if value is signal:
                    return f"{module}.{attribute}"
    return None


def _holders(signals: list[AsyncSignal]) -> list[list[str]]:
    """For each of some signals, the variables of all modules that hold it: one look for all of them."""
    found: dict[int, list[str]] = {id(signal): [] for signal in signals}
    for key, module in list(sys.modules.items()):
        namespace = _namespace(key)
        name = namespace.get("__name__")
        # What is there under two keys is looked at under its own.
        if key == "__main__" or name == "__main__" or (name != key and sys.modules.get(str(name)) is module):
            continue
        for attribute, value in namespace.items():
            if id(value) in found:
                found[id(value)].append(f"{key}.{attribute}")
    return [sorted(found[id(signal)]) for signal in signals]


def _unnamed_at(name: str) -> AsyncSignal | None:
    """The signal that a variable of this name holds, if it has no name of its own."""
    module, _, attribute = name.rpartition(".")
    signal = _namespace(module).get(attribute) if module != "__main__" else None
    # By identity: what stands in a module is anybody's, and may compare as it likes.
    return next((unnamed for unnamed in list(_unnamed) if unnamed is signal), None)


def _namespace(module: str) -> dict[str, Any]:
    """The variables of a module, as they are just now; of what is no ordinary module, none."""
    try:
        namespace = sys.modules[module].__dict__
        return namespace.copy() if type(namespace) is dict else {}
    except Exception:  # a lazy module may do anything when it is touched
        return {}


def _why(signal: AsyncSignal, holders: list[str]) -> str:
    if holders:
        return f"several variables hold it, {', '.join(holders)}, and none of them is where it was made"
    if signal._definition.modules[0] == "__main__":
        return "it stands in the script that was run, which a worker knows by another name"
    made_by = " or ".join(repr(module) for module in signal._definition.modules)
    return f"no variable of module {made_by} holds it, and none of any other module"


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
    if mine.modules != theirs.modules:
        return False
    if mine.is_same(theirs):
        return True
    # The module was edited and reloaded: the old one is no longer where its name says, or, if it was given that name,
    # where any variable is.
    if name == theirs.found_as:
        module, _, attribute = name.rpartition(".")
        return _namespace(module).get(attribute) is not other
    return not any(value is other for module in theirs.modules for value in _namespace(module).values())


def _after_fork_in_child() -> None:
    global _lock
    # Another thread of the parent may have held it, and is not here to let it go.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
