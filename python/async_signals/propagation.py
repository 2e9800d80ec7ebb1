"""From a message to its receivers, the same wherever they run."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync

from ._native import resolve_call
from .delivery import Delivery, LazyDelivery, current
from .failures import Failure
from .once import Once
from .receivers import NamedReceiver, Receiver
from .references import Lookup, SkipReceivers

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

logger = logging.getLogger("async_signals")

#: A receiver and what it returned or raised.
Response = tuple[Receiver, Any]
#: Where in its list a receiver stands, and what it raised.
Raised = tuple[int, Exception]


def here(task_id: str, name: str) -> Delivery:
    """The delivery of a signal that does not cross a queue."""
    return Delivery(task_id, name, 1, None, datetime.now(UTC))


def run(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    delivery: Delivery | LazyDelivery,
    only: frozenset[str] | None = None,
    responses: list[Response] | None = None,
    bare: bool = False,
) -> list[Failure]:
    """Puts the real values in the place of references, and calls every receiver, whatever the others raise.

    This is the way of every message in a worker: where no receiver fails, has
    one effect for each message, or is picked out by name, it costs nothing
    beyond the calls.

    Arguments:
        only: The names of the receivers that the message is still for; None: all.
        responses: Filled with what each returned or raised, where somebody wants it.
        bare: Whether sender and arguments are known to hold no references.

    Returns:
        The receivers that failed, and names in ``only`` that no receiver has here.

    Raises:
        UnresolvableReference, MissingRow: A reference stands for nothing here; no receiver was called.
    """
    if not bare:
        try:
            sender, named = resolve_call(sender, named, Lookup(signal.on_missing))
        except SkipReceivers as missing:
            logger.info("Signal %s[%s] is skipped: %s", delivery.signal, delivery.id, missing)
            return []
    receivers, coroutines = signal._live_receivers(sender)
    if not receivers and not coroutines and only is None:
        logger.warning("Signal %s[%s] has no receivers here", delivery.signal, delivery.id)
        return []
    token = current.set(delivery)
    try:
        if only is not None or signal._registry.any_once:
            return _call_chosen(signal, sender, named, delivery, only, responses, receivers, coroutines)
        failures: list[Failure] = []
        raised = _call(signal, sender, named, receivers, receivers, responses)
        if raised:
            failures += _failures(signal, signal._receiver_names(sender, receivers, False), raised)
        if coroutines:
            raised = _await(signal, sender, named, coroutines, responses)
            if raised:
                failures += _failures(signal, signal._receiver_names(sender, coroutines, True), raised)
        return failures
    finally:
        current.reset(token)


def _call(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    calls: Sequence[Callable[..., Any]],
    receivers: list[Receiver],
    responses: list[Response] | None,
) -> list[Raised]:
    """Makes one call for each receiver, one after the other."""
    raised: list[Raised] = []
    for index, call in enumerate(calls):
        try:
            response = call(signal=signal, sender=sender, **named)
        except Exception as error:
            signal._log_robust_failure(receivers[index], error)
            raised.append((index, error))
            response = error
        if responses is not None:
            responses.append((receivers[index], response))
    return raised


def _await(
    signal: AsyncSignal, sender: Any, named: dict[str, Any], receivers: list[Receiver], responses: list[Response] | None
) -> list[Raised]:
    """Awaits coroutine functions side by side, as Django does."""

    async def outcome(receiver: Receiver) -> tuple[Any, Exception | None]:
        try:
            return await receiver(signal=signal, sender=sender, **named), None
        except Exception as error:
            signal._log_robust_failure(receiver, error)
            return error, error

    async def outcomes() -> list[tuple[Any, Exception | None]]:
        return await asyncio.gather(*map(outcome, receivers))

    found = async_to_sync(outcomes)()
    if responses is not None:
        responses.extend((receiver, response) for receiver, (response, _) in zip(receivers, found, strict=True))
    return [(index, error) for index, (_, error) in enumerate(found) if error is not None]


def _call_chosen(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    delivery: Delivery | LazyDelivery,
    only: frozenset[str] | None,
    responses: list[Response] | None,
    receivers: list[Receiver],
    coroutines: list[Receiver],
) -> list[Failure]:
    """The same where receivers are picked out by name, or have one effect for each message."""
    plain, awaited = signal._receiver_names(sender, receivers, False), signal._receiver_names(sender, coroutines, True)
    ordinals = Counter[str]()
    calls: list[tuple[Callable[..., Any], Receiver, NamedReceiver]] = []
    side_by_side: list[tuple[Receiver, NamedReceiver]] = []
    for receiver, known, asynchronous in [
        *((receiver, known, False) for receiver, known in zip(receivers, plain, strict=True)),
        *((receiver, known, True) for receiver, known in zip(coroutines, awaited, strict=True)),
    ]:
        ordinals[known.name] += 1
        if only is not None and known.name not in only:
            continue
        if known.options.once:
            once = Once(receiver, asynchronous, delivery.id, known.name, ordinals[known.name])
            calls.append((once, receiver, known))
        elif asynchronous:
            side_by_side.append((receiver, known))
        else:
            calls.append((receiver, receiver, known))
    raised = _call(signal, sender, named, [each[0] for each in calls], [each[1] for each in calls], responses)
    failures = _failures(signal, [each[2] for each in calls], raised)
    if side_by_side:
        raised = _await(signal, sender, named, [each[0] for each in side_by_side], responses)
        failures += _failures(signal, [each[1] for each in side_by_side], raised)
    if only is not None:
        failures += [Failure(name, None, None) for name in sorted(only - ordinals.keys())]
    return failures


def _failures(signal: AsyncSignal, names: list[NamedReceiver], raised: list[Raised]) -> list[Failure]:
    failures = []
    for index, error in raised:
        name, options = names[index]
        retry = signal.retry if options.retry is None else options.retry or None
        failures.append(Failure(name, error, retry))
    return failures
