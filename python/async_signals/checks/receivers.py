"""Whether each receiver is there still, and can be called with what a signal calls it with."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from async_signals import names
from async_signals.receivers import Receiver, is_method, wire_name
from async_signals.weak_receivers import WeakReceiver

from .messages import never_raises

if TYPE_CHECKING:
    from async_signals.dispatcher import AsyncSignal


@never_raises
def check_receivers(**_: Any) -> Iterable[CheckMessage]:
    """Whether any would never run, or fail whenever it runs."""
    signals = [*names.known(), *names.unnamed()]
    if any(signal._weak_receivers.has_temporary() for signal in signals):
        gc.collect()  # what is garbage already is as good as gone
    for signal in signals:
        for gone in signal._weak_receivers.gone():
            yield _say_gone(signal, gone)
        for receiver in signal._connected_receivers():
            refused = _refused(receiver, signal)
            if refused:
                yield _say_refused(signal, receiver, refused)


def _say_gone(signal: AsyncSignal, gone: WeakReceiver) -> CheckMessage:
    if gone.is_temporary:
        hint = f"Connect it with weak=False, or keep {gone.kind} in a variable of a module."
    else:
        hint = (
            "Its name stands for something else by now: another function of its module, or what a decorator above "
            "@receiver has made of it. Rename one of them, put @receiver on top, or connect it with weak=False."
        )
    return CheckWarning(
        f"Receiver {gone.name} of {_name(signal)}, connected at {gone.where}, is gone, and never "
        f"runs: it is {gone.kind}, was connected weakly, and nothing refers to it.",
        hint=hint,
        id="async_signals.W010",
    )


def _say_refused(signal: AsyncSignal, receiver: Receiver, refused: list[str]) -> CheckMessage:
    return CheckWarning(
        f"Receiver {wire_name(receiver)} of {_name(signal)}{_defined_at(receiver)} cannot be called with what the "
        f"signal calls it with: {'; '.join(refused)}.",
        hint="Have it take **kwargs, as receivers of Django's signals do; with DEBUG, connect refuses one that does "
        "not.",
        id="async_signals.W011",
    )


def _refused(receiver: Any, signal: AsyncSignal) -> list[str]:
    """What is wrong with the arguments that a receiver takes, as far as that is sure."""
    if getattr(receiver, "__signature__", None) is not None:
        return []  # what somebody says of it
    # Of the function itself: a decorator may take other arguments than what it decorates. That of a method gets its
    # object first, which may have taken the place of an argument.
    function, given = (receiver.__func__, [receiver.__self__]) if is_method(receiver) else (receiver, [])
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:
        return []  # a callable of C's, or one that says nothing
    sent = sorted(signal.providing_args or ())
    wrong = [f"it takes no {name!r}" for name in ("signal", "sender", *sent) if not _takes(signature, given, name)]
    needed = [each for each in list(signature.parameters.values())[len(given) :] if each.default is each.empty]
    wrong += [f"it takes {each.name!r} by its position only" for each in needed if each.kind is each.POSITIONAL_ONLY]
    if signal.strict:
        wrong += [
            f"it needs {each.name!r}, which may not be sent"
            for each in needed
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            and each.name not in ("signal", "sender", *sent)
        ]
    return wrong


def _takes(signature: inspect.Signature, given: list[Any], name: str) -> bool:
    try:
        signature.bind_partial(*given, **{name: None})
    except TypeError:
        return False
    return True


def _defined_at(receiver: Receiver) -> str:
    code = getattr(receiver, "__code__", None)
    return "" if code is None else f", defined at {code.co_filename}:{code.co_firstlineno},"


def _name(signal: AsyncSignal) -> str:
    return f"the {signal!r}" if signal._name is None else f"signal {signal._name}"
