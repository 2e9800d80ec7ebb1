"""How a send finds its way: to Celery, after a commit, into a recorder, or to receivers here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from . import _native, application, settings, transactions
from .sent import Sent
from .waiting import off_hub

if TYPE_CHECKING:
    from celery import Celery

    from ._native import Outlet, Prepared
    from .dispatcher import AsyncSignal

try:
    from celery import Task, _state
    from celery.signals import after_task_publish, before_task_publish
    from kombu import Producer

    from . import outgoing, publishers

    # By thread, what the task stack itself is made of: asking the stack costs a fifth of a send.
    _RUNNING_TASKS = getattr(getattr(_state._task_stack, "_local", None), "__storage__", None)
except ImportError:
    _state = None

#: Gets every send instead of Celery while ``capture_signals()`` is on.
#: None from it: this one is not for it.
recorder: Callable[[AsyncSignal, Any, dict[str, Any], dict[str, Any]], Sent | None] | None = None

_RETRY_PAUSE = 0.005
#: Programs have an app or two; tests may make one after the other.
_MOST_WAYS = 8


class Way:
    """How a signal's sends go from threads with one current app, as long as nothing changes that it was found by."""

    __slots__ = ("_apply_async", "_changes", "_eager", "_generation", "_publish", "app", "eager", "name", "outlet")

    def __init__(self, signal: AsyncSignal) -> None:
        self._generation = settings.generation
        self.app: Celery | None = application.find()
        self.eager = False
        self.outlet: Outlet | None = None
        self.name = ""
        if self.app is None:
            return
        conf = self.app.conf
        self.eager = bool(conf.task_always_eager)
        # Where `app.conf.task_always_eager = True` goes; reading the setting itself costs as much as a send.
        self._changes = conf.maps[0]
        self._eager = self._changes.get("task_always_eager")
        self._apply_async = Task.apply_async
        self._publish = Producer.publish
        self.name = signal.name
        if not self.eager:
            self.outlet = outgoing.outlet(self.app, signal, self.name)

    def holds(self) -> bool:
        """Whether it is still the way to go."""
        return (
            self._generation == settings.generation
            and self.app is not None
            and self._changes.get("task_always_eager") is self._eager
            and (
                self.outlet is None
                or (
                    not before_task_publish.receivers
                    and not after_task_publish.receivers
                    and Task.apply_async is self._apply_async
                    and Producer.publish is self._publish
                )
            )
        )


def send(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], robust: bool) -> Sent:
    """Sends a signal. See ``AsyncSignal.send``."""
    _check(signal, named)
    if recorder is not None:
        recorded = recorder(signal, sender, named, options)
        if recorded is not None:
            return recorded
    way = _way(signal)
    if way.app is None:
        _warn_not_configured()
        method = Signal.send_robust if robust else Signal.send
        return Sent(method(signal, sender, **named))
    on_commit = options.get("on_commit", signal.on_commit)
    if settings.get().on_commit if on_commit is None else on_commit:
        connection = transactions.pending(sender, named, options.get("database"))
        if connection is not None:
            parcel = Parcel(way, signal, sender, named, options, snapshot=True)
            transactions.publish_on_commit(connection, parcel, _publish_all)
            return Sent((), parcel.id)
    if way.eager:
        return Parcel(way, signal, sender, named, options).run_here()
    durability = options.get("durability") or signal.durability or settings.get().durability
    if way.outlet is not None and not options:
        if durability == "background":
            return Sent((), _buffer(way.outlet, sender, named))
        prepared = way.outlet.prepare(sender, named, _parent())
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
    way = _way(signal)
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


class Parcel:
    """One send, encoded: its errors are known, and what is changed afterwards does not change it."""

    __slots__ = ("_named", "_options", "_sender", "_signal", "_way", "durability", "id", "prepared")

    def __init__(
        self,
        way: Way,
        signal: AsyncSignal,
        sender: Any,
        named: dict[str, Any],
        options: dict[str, Any],
        snapshot: bool = False,
    ) -> None:
        self._way = way
        self._signal = signal
        self._options = {
            option: value
            for option, value in options.items()
            if option in outgoing.PER_SEND_OPTIONS and value is not None
        }
        self.durability = options.get("durability") or signal.durability or settings.get().durability
        self.prepared: Prepared | None = None
        if way.outlet is not None and not self._options:
            self.prepared = way.outlet.prepare(sender, named, _parent())
            self.id: str = self.prepared.id
            return
        task_id = self._options.pop("task_id", None)
        self.id = outgoing.str_id() if task_id is None else _uuid(task_id)
        body = _native.encode_body(way.name, sender, named, settings.get().max_message_size)
        if snapshot or way.eager:
            (_, sender), named, _ = _native.decode_body(body)
        self._sender, self._named = sender, named

    @property
    def signal(self) -> AsyncSignal:
        """The signal that is sent."""
        return self._signal

    def publish(self, deliver: Callable[[Prepared], Any]) -> None:
        """Gives the message to ``deliver``; one that the core cannot carry goes out through Celery."""
        if self.prepared is not None:
            deliver(self.prepared)
            return
        if self._way.eager:
            self.run_here()
            return
        assert self._way.app is not None
        outgoing.apply_async(
            self._way.app,
            self._signal,
            self._way.name,
            self._sender,
            self._named,
            self.id,
            deliver,
            **self._options,
        )

    def run_here(self) -> Sent:
        """Calls the receivers on what a worker would have got (``task_always_eager``)."""
        from . import propagation

        app, name = self._way.app, self._way.name
        delivery = propagation.here(self.id, name)
        responses = propagation.call_receivers(self._signal, self._sender, self._named, delivery)
        if app is not None and app.conf.task_eager_propagates:
            for _, response in responses:
                if isinstance(response, Exception):
                    raise response
        return Sent(responses, self.id)


def _publish_all(parcels: list[Parcel]) -> None:
    """Publishes what a transaction has sent, pipelined, without ever raising into Django."""
    ready: list[tuple[Parcel, Prepared]] = []
    failed: list[tuple[Parcel, BaseException]] = []
    for parcel in parcels:

        def deliver(prepared: Prepared, parcel: Parcel = parcel) -> None:
            if parcel.durability == "background":
                off_hub(prepared.buffer)
            else:
                ready.append((parcel, prepared))

        try:
            parcel.publish(deliver)
        except Exception as refused:
            failed.append((parcel, refused))
    if ready:
        app = parcels[0]._way.app
        assert app is not None
        timeout = settings.get().publish_timeout
        messages = [prepared for _, prepared in ready]
        try:
            errors = off_hub(lambda: publishers.for_app(app).confirm_all(messages, timeout))
        except Exception as failure:
            errors = [failure] * len(messages)
        failed.extend((parcel, error) for (parcel, _), error in zip(ready, errors, strict=True) if error is not None)
    for parcel, error in failed:
        publishers.report_failure(parcel.signal, parcel.id, error)


def _way(signal: AsyncSignal) -> Way:
    # Celery's current app is a thread's own, so threads may differ in it.
    current = None if _state is None else _state._tls.current_app or _state.default_app
    way = signal._ways.get(current)
    if way is None or not way.holds():
        if len(signal._ways) >= _MOST_WAYS:
            signal._ways.clear()
        way = signal._ways[current] = Way(signal)
    return way


def _check(signal: AsyncSignal, named: dict[str, Any]) -> None:
    if signal.providing_args is not None:
        signal._check_arguments(named)
    if "signal" in named:
        raise TypeError("an argument cannot be called 'signal': receivers get the signal itself by that name")


def _parent() -> tuple[str, str] | None:
    """The ids of the running task and of its root, if a task sends."""
    if _RUNNING_TASKS is not None and not _RUNNING_TASKS:
        return None
    task = _state.get_current_worker_task()
    if task is None:
        return None
    request = task.request
    return request.id, request.root_id or request.id


def _buffer(outlet: Outlet, sender: Any, named: dict[str, Any]) -> str:
    return outlet.background(sender, named, _parent())


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


def _uuid(task_id: Any) -> str:
    import uuid

    try:
        return str(uuid.UUID(str(task_id)))
    except ValueError:
        raise ValueError(f"task_id is {task_id!r}; use a UUID") from None


def _warn_not_configured() -> None:
    from .dispatcher import warn_not_configured

    warn_not_configured()
