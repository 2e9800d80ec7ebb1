"""One send that waits, or that is not like every other of its signal."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _native, propagation, settings
from .sent import Sent
from .waiting import off_hub

if TYPE_CHECKING:
    from ._native import Prepared
    from .dispatcher import AsyncSignal
    from .way import Way

try:
    from celery import _state

    from . import outgoing, publishers

    # By thread, what the task stack itself is made of: asking the stack costs a fifth of a send.
    _RUNNING_TASKS = getattr(getattr(_state._task_stack, "_local", None), "__storage__", None)
except ImportError:
    _state = None


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
            self.prepared = way.outlet.prepare(sender, named, parent())
            self.id: str = self.prepared.id
            return
        task_id = self._options.pop("task_id", None)
        self.id = outgoing.str_id() if task_id is None else _checked(task_id)
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
        app, name = self._way.app, self._way.name
        delivery = propagation.here(self.id, name)
        responses: list[propagation.Response] = []
        propagation.run(self._signal, self._sender, self._named, delivery, responses=responses)
        if app is not None and app.conf.task_eager_propagates:
            for _, response in responses:
                if isinstance(response, Exception):
                    raise response
        return Sent(responses, self.id)


def publish_all(parcels: list[Parcel]) -> None:
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


def parent() -> tuple[str, str] | None:
    """The ids of the running task and of its root, if a task sends."""
    if _RUNNING_TASKS is not None and not _RUNNING_TASKS:
        return None
    task = _state.get_current_worker_task()
    if task is None:
        return None
    request = task.request
    return request.id, request.root_id or request.id


def _checked(task_id: Any) -> str:
    try:
        return str(uuid.UUID(str(task_id)))
    except ValueError:
        raise ValueError(f"task_id is {task_id!r}; use a UUID") from None
