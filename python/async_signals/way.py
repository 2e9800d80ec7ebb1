"""How a signal's sends go, found once and kept as long as it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import application, settings

if TYPE_CHECKING:
    from celery import Celery

    from ._native import Outlet
    from .dispatcher import AsyncSignal

try:
    from celery import Task, _state
    from celery.signals import after_task_publish, before_task_publish
    from kombu import Producer

    from . import outgoing
except ImportError:
    _state = None

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


def way_of(signal: AsyncSignal) -> Way:
    """The way that holds for this thread now."""
    # Celery's current app is a thread's own, so threads may differ in it.
    current = None if _state is None else _state._tls.current_app or _state.default_app
    way = signal._ways.get(current)
    if way is None or not way.holds():
        if len(signal._ways) >= _MOST_WAYS:
            signal._ways.clear()
        way = signal._ways[current] = Way(signal)
    return way
