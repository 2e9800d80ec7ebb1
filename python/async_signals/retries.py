"""``retry=``: whether and when a receiver that failed is tried again."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Retry:
    """A receiver's retries. Times are in seconds; the pauses themselves are the core's to choose.

    Attributes:
        max: How often it is tried again after the first time. 0: dead-lettered at its first failure.
        base: The first pause.
        factor: By what each pause is longer than the one before.
        cap: The longest pause.
        jitter: Whether a pause is anything from its half to its whole.
        on: The exceptions that are worth another try; with any other one it is dead-lettered at once.
    """

    max: int
    base: float = 1.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: bool = True
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        # What users write, of whatever type.
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if isinstance(given["max"], bool) or not isinstance(given["max"], int) or not 0 <= given["max"] < 2**32:
            raise ValueError(f"retry['max'] is {self.max!r}; use a whole number from 0 on")
        for name, lowest in (("base", 0), ("factor", 1), ("cap", 0)):
            value = given[name]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < lowest:
                raise ValueError(f"retry[{name!r}] is {value!r}; use a number from {lowest} on")
        if not isinstance(given["jitter"], bool):
            raise ValueError(f"retry['jitter'] is {self.jitter!r}; use True or False")
        on = tuple(given["on"]) if isinstance(given["on"], (tuple, list)) else (given["on"],)
        if not on or not all(isinstance(error, type) and issubclass(error, Exception) for error in on):
            raise ValueError(f"retry['on'] is {self.on!r}; use an exception class or several")
        object.__setattr__(self, "on", on)

    def allows(self, attempt: int, error: BaseException) -> bool:
        """Whether a receiver that raised this in a try, counted from 1, is tried again."""
        return isinstance(error, self.on) and attempt <= self.max

    def for_error(self, error: BaseException) -> dict[str, Any]:
        """The core's policy for a receiver that raised this."""
        retried = isinstance(error, self.on)
        return {
            "max": self.max if retried else 0,
            "base": float(self.base),
            "factor": float(self.factor),
            "cap": float(self.cap),
            "jitter": self.jitter,
        }


def read(given: Mapping[str, Any] | None) -> Retry | None:
    """What was given as ``retry=``, checked; None: no retries.

    Raises:
        TypeError: It is no dict, or has a key that there is not.
        ValueError: A value cannot be right.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(f"retry must be a dict such as {{'max': 5, 'base': 2}}, not {given!r}")
    known = [field.name for field in dataclasses.fields(Retry)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise TypeError(f"retry has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}")
    if "max" not in given:
        raise TypeError("retry needs 'max': how often a receiver that failed is tried again")
    return Retry(**given)
