"""How a send finds its way: to Celery, after a commit, into a recorder, or to receivers here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from . import settings, transactions
from .parcel import Parcel, parent, publish_all
from .sent import Sent
from .waiting import off_hub
from .way import way_of

if TYPE_CHECKING:
    from ._native import Prepared
    from .dispatcher import AsyncSignal

#: Gets every send instead of Celery while ``capture_signals()`` is on.
#: None from it: this one is not for it.
recorder: Callable[[AsyncSignal, Any, dict[str, Any], dict[str, Any]], Sent | None] | None = None

#: How soon to look again for room in a full buffer, in seconds.
_RETRY_PAUSE = 0.005


def send(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], robust: bool) -> Sent:
    """Sends a signal. See ``AsyncSignal.send``."""
    _check(signal, named)
    if recorder is not None:
        recorded = recorder(signal, sender, named, options)
        if recorded is not None:
            return recorded
    way = way_of(signal)
    if way.app is None:
        _warn_not_configured()
        method = Signal.send_robust if robust else Signal.send
        return Sent(method(signal, sender, **named))
    on_commit = options.get("on_commit", signal.on_commit)
    if settings.get().on_commit if on_commit is None else on_commit:
        connection = transactions.pending(sender, named, options.get("database"))
        if connection is not None:
            parcel = Parcel(way, signal, sender, named, options, snapshot=True)
            transactions.publish_on_commit(connection, parcel, publish_all)
            return Sent((), parcel.id)
    if way.eager:
        return Parcel(way, signal, sender, named, options).run_here()
    durability = options.get("durability") or signal.durability or settings.get().durability
    if way.outlet is not None and not options:
        if durability == "background":
            return Sent((), way.outlet.background(sender, named, parent()))
        prepared = way.outlet.prepare(sender, named, parent())
        off_hub(prepared.confirm)
        return Sent((), prepared.id)
    parcel = Parcel(way, signal, sender, named, options)
    parcel.publish(lambda prepared: off_hub(prepared.buffer if durability == "background" else prepared.confirm))
    return Sent((), parcel.id)


async def asend(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], robust: bool) -> Sent:
    """Sends a signal without blocking the event loop. See ``AsyncSignal.asend``."""
    _check(signal, named)
    if recorder is not None:
        recorded = recorder(signal, sender, named, options)
        if recorded is not None:
            return recorded
    way = way_of(signal)
    if way.app is None:
        _warn_not_configured()
        method = Signal.asend_robust if robust else Signal.asend
        return Sent(await method(signal, sender, **named))
    if way.eager:
        from asgiref.sync import sync_to_async

        return await sync_to_async(Parcel(way, signal, sender, named, options).run_here)()
    durability = options.get("durability") or signal.durability or settings.get().durability
    parcel = Parcel(way, signal, sender, named, options)
    ready: list[Prepared] = []
    if parcel.prepared is not None:
        ready.append(parcel.prepared)
    else:
        # Celery's own publishing may block: not on the event loop's thread.
        await asyncio.to_thread(parcel.publish, ready.append)
    for prepared in ready:
        await (_abuffer(prepared) if durability == "background" else _aconfirm(prepared))
    return Sent((), parcel.id)


def _check(signal: AsyncSignal, named: dict[str, Any]) -> None:
    if signal.providing_args is not None:
        signal._check_arguments(named)
    if "signal" in named:
        raise TypeError("an argument cannot be called 'signal': receivers get the signal itself by that name")


async def _aconfirm(prepared: Prepared) -> None:
    loop = asyncio.get_running_loop()
    confirmed: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        # Nobody minds if the awaiting task was cancelled, or its loop closed, meanwhile.
        if confirmed.done():
            return
        if error is None:
            confirmed.set_result(None)
        else:
            confirmed.set_exception(error)

    def call_back(error: BaseException | None) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, error)

    prepared.confirm_later(call_back)
    await confirmed


async def _abuffer(prepared: Prepared) -> None:
    from .errors import SignalNotSent

    loop = asyncio.get_running_loop()
    give_up = loop.time() + settings.get().buffer_timeout
    while True:
        try:
            return prepared.try_buffer()
        except SignalNotSent as error:
            if error.code != "buffer_full" or loop.time() >= give_up:
                raise
        await asyncio.sleep(_RETRY_PAUSE)


def _warn_not_configured() -> None:
    from .dispatcher import warn_not_configured

    warn_not_configured()
