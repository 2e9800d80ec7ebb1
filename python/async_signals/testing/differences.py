"""How what was sent differs from what was expected, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from async_signals.errors import DuplicateSignalName, NoWireName

#: How long a value is shown, in characters.
_LONGEST = 200
#: How many differences of one value are shown, and how many signals in a list.
_MOST_DIFFERENCES = 8
_MOST_LISTED = 20
#: How deep a difference is looked for: no deeper than a signal may nest.
_DEEPEST = 64


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING: Any = _Missing()


def name_of(signal: Any) -> str:
    """How a message names a signal, also one that has no name."""
    try:
        return str(signal.name)
    except (NoWireName, DuplicateSignalName):
        return repr(signal)


def shown(value: Any) -> str:
    """A value in one line, also one that cannot show itself."""
    try:
        text = repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__} whose repr raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def arguments(sender: Any, named: Mapping[str, Any]) -> str:
    """Sender and arguments as a call shows them."""
    return ", ".join([f"sender={shown(sender)}", *(f"{name}={shown(value)}" for name, value in named.items())])


def equal(expected: Any, actual: Any) -> bool:
    """Whether two values are equal; those that cannot be compared are not."""
    try:
        return expected is actual or bool(expected == actual)
    except Exception:
        return False


def between(expected: Any, actual: Any, path: str) -> list[str]:
    """Where two values differ, a line for each place; none: they are equal.

    Arguments:
        path: How to name the place of the whole: ``order``; places in it become ``order["lines"][2]``.
    """
    return _between(expected, actual, path, _DEEPEST)[:_MOST_DIFFERENCES]


def _between(expected: Any, actual: Any, path: str, depth: int) -> list[str]:
    if equal(expected, actual):
        return []
    inner: list[str] = []
    if depth and isinstance(expected, Mapping) and isinstance(actual, Mapping):
        keys = [*expected, *(key for key in actual if key not in expected)]
        for key in keys:
            place = f"{path}[{shown(key)}]"
            inner += _between(expected.get(key, MISSING), actual.get(key, MISSING), place, depth - 1)
    elif depth and _is_alike(expected, actual):
        for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
            inner += _between(left, right, f"{path}[{index}]", depth - 1)
    return inner or [f"{path}: expected {shown(expected)}, but it was {shown(actual)}"]


def _is_alike(expected: Any, actual: Any) -> bool:
    """Whether two sequences are best compared one by one."""
    sequences = isinstance(expected, Sequence) and isinstance(actual, Sequence)
    return sequences and not isinstance(expected, (str, bytes)) and len(expected) == len(actual)


def listed(lines: Iterable[str]) -> str:
    """Lines with numbers; where there are many, the first and how many more."""
    every = list(lines)
    shown_lines = [f"  {number}. {line}" for number, line in enumerate(every[:_MOST_LISTED], 1)]
    if len(every) > _MOST_LISTED:
        shown_lines.append(f"  … and {len(every) - _MOST_LISTED} more")
    return "\n".join(shown_lines)


def times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{number} times"
