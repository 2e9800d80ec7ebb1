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
from .failures import Failure, shown
from .once import Once
from .receivers import NamedReceiver, Receiver
from .references import Lookup, SkipReceivers

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

logger = logging.getLogger("async_signals")

#: A receiver and what it returned or raised.
Response = tuple[Receiver, Any]
#: Told of each receiver that has failed, with the signal, the delivery, and whether it is tried again. Tests listen.
failure_listeners: list[Callable[[AsyncSignal, Delivery | LazyDelivery, Failure, bool], None]] = []
#: Gives the names and options of receivers, in their order: asked only when one of them fails.
Names = Callable[[], list[NamedReceiver]]


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
        gone = "".join(f"; {each.name}, connected at {each.where}, is gone" for each in signal._weak_receivers.gone())
        logger.warning("Signal %s[%s] has no receivers here%s", delivery.signal, delivery.id, gone)
        return []
    token = current.set(delivery)
    failed = _FailedReceivers(signal, delivery)
    try:
        if only is not None or signal._registry.any_once:
            return _call_chosen(signal, sender, named, failed, only, responses, receivers, coroutines)
        _call(
            signal,
            sender,
            named,
            receivers,
            receivers,
            lambda: signal._receiver_names(sender, receivers, False),
            failed,
            responses,
        )
        if coroutines:
            _await(
                signal,
                sender,
                named,
                coroutines,
                lambda: signal._receiver_names(sender, coroutines, True),
                failed,
                responses,
            )
        return failed.failures
    finally:
        current.reset(token)


class _FailedReceivers:
    """The receivers that failed. Each is logged at once: another one may end the process."""

    __slots__ = ("_signal", "delivery", "failures")

    def __init__(self, signal: AsyncSignal, delivery: Delivery | LazyDelivery) -> None:
        self._signal = signal
        self.delivery = delivery
        self.failures: list[Failure] = []

    def add(self, receiver: Receiver, known: NamedReceiver, error: Exception) -> None:
        """Logs one in one line, with its traceback."""
        retry = self._signal.retry if known.options.retry is None else known.options.retry or None
        failure = Failure(known.name, error, retry)
        self.failures.append(failure)
        delivery = self.delivery
        again = retry is not None and retry.allows(delivery.attempt, error)
        for listener in tuple(failure_listeners):
            listener(self._signal, delivery, failure, again)
        if isinstance(delivery, Delivery) and delivery.queue is None:
            # Called where the signal was sent: said as Django says it, by Django's logger.
            self._signal._log_robust_failure(receiver, error)
            return
        logger.log(
            logging.WARNING if again else logging.ERROR,
            "Receiver %s of signal %s[%s] failed in try %d%s: %s",
            known.name,
            delivery.signal,
            delivery.id,
            delivery.attempt,
            ", and is tried again" if again else "" if retry is None else ", the last one",
            shown(error),
            exc_info=error,
        )

    def add_missing(self, name: str) -> None:
        """Logs one that the message names, and that is not connected here."""
        logger.error("Receiver %s of signal %s[%s] is not here", name, self.delivery.signal, self.delivery.id)
        self.failures.append(Failure(name, None, None))


def _call(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    calls: Sequence[Callable[..., Any]],
    receivers: list[Receiver],
    names: Names,
    failed: _FailedReceivers,
    responses: list[Response] | None,
) -> None:
    """Makes one call for each receiver, one after the other."""
    for index, call in enumerate(calls):
        try:
            response = call(signal=signal, sender=sender, **named)
        except Exception as error:
            failed.add(receivers[index], names()[index], error)
            response = error
        if responses is not None:
            responses.append((receivers[index], response))


def _await(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    receivers: list[Receiver],
    names: Names,
    failed: _FailedReceivers,
    responses: list[Response] | None,
) -> None:
    """Awaits coroutine functions side by side, as Django does."""

    async def outcome(index: int, receiver: Receiver) -> Any:
        try:
            return await receiver(signal=signal, sender=sender, **named)
        except Exception as error:
            failed.add(receiver, names()[index], error)
            return error

    async def outcomes() -> list[Any]:
        return await asyncio.gather(*(outcome(index, receiver) for index, receiver in enumerate(receivers)))

    found = async_to_sync(outcomes)()
    if responses is not None:
        responses.extend(zip(receivers, found, strict=True))


def _call_chosen(
    signal: AsyncSignal,
    sender: Any,
    named: dict[str, Any],
    failed: _FailedReceivers,
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
            once = Once(receiver, asynchronous, failed.delivery.id, known.name, ordinals[known.name])
            calls.append((once, receiver, known))
        elif asynchronous:
            side_by_side.append((receiver, known))
        else:
            calls.append((receiver, receiver, known))
    _call(
        signal,
        sender,
        named,
        [each[0] for each in calls],
        [each[1] for each in calls],
        lambda: [each[2] for each in calls],
        failed,
        responses,
    )
    if side_by_side:
        chosen = [each[0] for each in side_by_side]
        _await(signal, sender, named, chosen, lambda: [each[1] for each in side_by_side], failed, responses)
    for name in sorted(only - ordinals.keys()) if only is not None else ():
        failed.add_missing(name)
    return failed.failures
