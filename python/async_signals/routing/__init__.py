"""Where a signal's sends go: which Celery app, by which route, and whether the core can carry them.

Celery decides. For a signal whose every message looks alike it is asked once,
and what it makes becomes a ``MessageTemplate``, in which the core fills in what
differs. As soon as anybody wants a say in each message (a router that is a
function, receivers of Celery's publishing signals, a patched ``apply_async``),
each goes through ``apply_async``: see ``producer.py``.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from async_signals import compat, settings
from async_signals.compat import HAS_CELERY

if HAS_CELERY:
    from celery import Task
    from celery.signals import after_task_publish, before_task_publish, task_sent
    from kombu import Producer

    #: What ``compat.current_app`` asks, which is asked before each send here.
    _celery_state, _threads_own = compat.celery_state, compat.celery_state._tls

if TYPE_CHECKING:
    from celery import Celery

    from async_signals._native import MessageTemplate, Publisher
    from async_signals.dispatcher import AsyncSignal

#: The Celery task that carries every signal.
TASK = "async_signals.propagate"
#: How many apps a signal keeps its plan for: programs have one or two; tests may make one after the other.
_MOST_PLANS = 8


class SendPlan:
    """How a signal is sent from threads with one current app. It holds as long as nothing changes that it came from.

    Attributes:
        app: The Celery app; None: Celery is not configured, and receivers run where the signal is sent.
        name: The signal's wire name.
        eager: Whether receivers run here all the same (``task_always_eager``).
        durability: The signal's, else the settings'.
        on_commit: Whether a send in a transaction waits for the commit: the signal's, else the settings'.
        may_refuse: Whether sends are refused while the signal is paused: the signal's when_paused, else the settings'.
        publisher: The app's native publisher; None: the core does not speak to the broker, and Celery's own producer
            publishes.
        template: What makes each message, where they all look alike; None: each goes through Celery's ``apply_async``.
    """

    __slots__ = (
        "_apply_async",
        "_changes",
        "_changes_then",
        "_generation",
        "_is_observed",
        "_publish",
        "_queue",
        "_send_task",
        "app",
        "durability",
        "eager",
        "may_refuse",
        "name",
        "on_commit",
        "publisher",
        "template",
    )

    def __init__(self, signal: AsyncSignal) -> None:
        self._generation = settings.generation
        defaults = settings.get()
        self.durability: str = signal.durability or defaults.durability
        self.on_commit: bool = defaults.on_commit if signal.on_commit is None else signal.on_commit
        self.may_refuse = (signal.when_paused or defaults.when_paused) == "refuse"
        self._queue: str | None = None
        self.app: Celery | None = find_app()
        self.eager = False
        self.publisher: Publisher | None = None
        self.template: MessageTemplate | None = None
        self.name = ""
        self._is_observed = False
        if self.app is None:
            return
        from . import producer

        self.name = signal.name
        self.eager = bool(self.app.conf.task_always_eager)
        self._changes = compat.changed_settings(self.app)
        self._changes_then = dict(self._changes)
        self._apply_async, self._publish = Task.apply_async, Producer.publish
        self._send_task = type(self.app).send_task
        if not self.eager:
            self.publisher = producer.publisher_for(self.app)
            self._is_observed = producer.is_observed(self.app)
            if not self._is_observed:
                self.template = producer.template(self.app, self.publisher, signal, self.name)

    def holds(self) -> bool:
        """Whether it is still how the signal is sent: no setting has changed, nobody has begun or ceased to look on."""
        # Looked at before each send, so nothing here costs more than a look.
        return (
            self._generation == settings.generation
            and self.app is not None
            and self._changes == self._changes_then
            and (
                (not self._is_observed or self._is_still_observed())
                if self.template is None
                else (
                    not before_task_publish.receivers
                    and not after_task_publish.receivers
                    and not task_sent.receivers
                    and Task.apply_async is self._apply_async
                    and Producer.publish is self._publish
                    and type(self.app).send_task is self._send_task
                )
            )
        )

    def queue_of(self, signal: AsyncSignal) -> str | None:
        """The queue that Celery's router has for the signal; None where only a send would tell."""
        if self._queue is None and self.app is not None:
            from async_signals.inspection.routes import Routes

            self._queue = Routes(self.app).queue_of(signal)
        return self._queue

    def _is_still_observed(self) -> bool:
        from .producer import is_observed

        return is_observed(self.app)


def plan_for(signal: AsyncSignal) -> SendPlan:
    """The plan that holds for this thread now."""
    # Celery's current app is a thread's own, so threads may differ in it.
    current = _threads_own.current_app or _celery_state.default_app if HAS_CELERY else None
    plan: SendPlan | None = signal._plans.get(current)
    if plan is None or not plan.holds():
        if len(signal._plans) >= _MOST_PLANS:
            signal._plans.clear()
        plan = signal._plans[current] = SendPlan(signal)
    return plan


def find_app() -> Celery | None:
    """The app that has a broker of its own: the one that is set, else the current one, else the only one.

    Raises:
        ImproperlyConfigured: It cannot be loaded, or several could be meant.
    """
    if not HAS_CELERY:
        return None
    configured = settings.get().app
    if configured is not None:
        return _load_app(configured)
    current = compat.current_app()
    if current is not None and has_broker(current):
        return current
    others = [app for app in compat.active_apps() if app is not current and has_broker(app)]
    if len(others) > 1:
        names = ", ".join(sorted(repr(app.main) for app in others))
        raise ImproperlyConfigured(
            f"several Celery apps have a broker ({names}) and none is current in this thread; "
            f"name the one that carries signals in ASYNC_SIGNALS['app']"
        )
    return others[0] if others else None


def has_broker(app: Celery) -> bool:
    """Whether the app was told a broker. Celery's silent default, amqp://localhost, does not count."""
    return bool(app.conf.broker_write_url)


def _load_app(app: Any) -> Celery:
    if not isinstance(app, str):
        return app
    module_name, _, attribute = app.replace(":", ".").rpartition(".")
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
        return getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"ASYNC_SIGNALS['app'] is {app!r}, which cannot be loaded: {error}") from error


class NotNative(Exception):
    """The core does not speak this; Celery's own producer does."""


def route(exchange: str, routing_key: str, declare: list[Any] | None) -> dict[str, Any]:
    """Where Celery would publish, and what it would declare first, as the core takes it.

    Raises:
        NotNative: Something in it is not the core's to do.
    """
    return {
        "exchange": exchange,
        "routing_key": routing_key,
        "declare": [_queue(entity) for entity in declare or ()],
    }


def route_to_queue(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Straight to a durable queue that is declared, if it is not there, with these arguments."""
    return route("", name, [durable_queue(name, arguments)])


def durable_queue(name: str, arguments: dict[str, Any] | None = None) -> Any:
    """A durable kombu queue that is bound to nothing but the default exchange."""
    from kombu import Exchange, Queue

    return Queue(name, Exchange(""), routing_key=name, queue_arguments=arguments)


def _queue(entity: Any) -> dict[str, Any]:
    from kombu import Queue
    from kombu.transport.base import to_rabbitmq_queue_arguments

    if not isinstance(entity, Queue) or entity.bindings or entity.on_declared:
        raise NotNative(f"{entity!r} is more than a queue with one binding")
    arguments = to_rabbitmq_queue_arguments(
        entity.queue_arguments or {},
        expires=entity.expires,
        message_ttl=entity.message_ttl,
        max_length=entity.max_length,
        max_length_bytes=entity.max_length_bytes,
        max_priority=entity.max_priority,
    )
    return {
        "name": entity.name,
        "exchange": _exchange(entity.exchange),
        "routing_key": entity.routing_key or "",
        "durable": bool(entity.durable),
        "exclusive": bool(entity.exclusive),
        "auto_delete": bool(entity.auto_delete),
        "declare": not entity.no_declare,
        "arguments": dict(arguments),
        "binding_arguments": dict(entity.binding_arguments or {}),
    }


def _exchange(entity: Any) -> dict[str, Any] | None:
    if entity is None or not entity.name:
        return None
    if entity.type not in ("direct", "topic"):
        raise NotNative(f"exchange {entity.name!r} is of type {entity.type!r}")
    return exchange(entity)


def exchange(entity: Any) -> dict[str, Any]:
    """A kombu exchange of whatever type, as the core takes it."""
    return {
        "name": entity.name,
        "kind": entity.type,
        "durable": bool(entity.durable),
        "auto_delete": bool(entity.auto_delete),
        "declare": not (entity.no_declare or entity.passive),
        "arguments": dict(entity.arguments or {}),
    }
