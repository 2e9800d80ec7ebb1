"""What the kit is given, looked over before anything is done with it."""

from __future__ import annotations

from typing import Any

from async_signals.dispatcher import AsyncSignal


def check_signals(signals: tuple[Any, ...], name: str) -> tuple[AsyncSignal, ...]:
    """The signals that a function was given.

    Raises:
        TypeError: One is no ``AsyncSignal``: a decorator without parentheses, or a list of them.
    """
    for signal in signals:
        if not isinstance(signal, AsyncSignal):
            hint = f"; write @{name}() with parentheses" if callable(signal) else ""
            raise TypeError(f"{name}() takes AsyncSignals, one after the other, not {signal!r}{hint}")
    return signals
