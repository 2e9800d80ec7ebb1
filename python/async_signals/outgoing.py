"""The ways out of this process: straight through the core, or through Celery's own publishing.

The short way holds for signals whose every message looks alike: Celery itself
makes one message (``Template``), and the core fills in what differs. As soon
as anything wants a say in each message (a router that is a function, receivers
of Celery's publishing signals, somebody's patch of ``send_task``), each goes
through ``apply_async``, with a producer that hands it to the core.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import celery.app.amqp
import celery.app.base
import celery.app.task
import kombu.messaging
from celery import Celery, signals
from celery.app.routes import MapRoute
from celery.exceptions import QueueNotFound
from kombu import Producer

from . import publishers, routing, settings
from ._native import Outlet, Prepared, Publisher, encode_body
from .application import TASK
from .errors import SignalNotSent
from .routing import NotNative

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal

#: What the core takes over of a message's properties as Celery made them.
_PROPERTIES = ("correlation_id", "reply_to", "delivery_mode", "expiration")
#: Takes a finished message: body, route, headers, properties.
Take = Callable[[bytes, dict[str, Any], dict[str, Any], dict[str, Any]], None]
#: What apply_async is told that only one send knows; such a send takes Celery's way.
PER_SEND_OPTIONS = ("countdown", "eta", "expires", "priority", "queue", "task_id")


def is_observed(app: Celery) -> bool:
    """Whether anybody wants to see, or to change, each message that Celery publishes."""
    return bool(
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or is_patched(app)
    )


def is_patched(app: Celery) -> bool:
    """Whether somebody has replaced a function of Celery's or kombu's publishing."""
    # A wrapper lives in its author's module, and so do its globals; functools.wraps copies only names.
    for owner, name, home in (
        (type(app), "send_task", celery.app.base),
        (app.Task, "apply_async", celery.app.task),
        (Producer, "publish", kombu.messaging),
    ):
        function = getattr(owner, name)
        if type(function) is not FunctionType or function.__globals__ is not vars(home):
            return True
    return "send_task" in vars(app)


def outlet(app: Celery, signal: AsyncSignal, name: str) -> Outlet | None:
    """The short way for a signal, or None if each of its messages must go through Celery.

    Raises:
        SignalNotSent: Celery knows no such queue.
    """
    try:
        publisher = publishers.for_app(app)
        if is_observed(app) or not _is_uniform(app) or signal.expires is not None:
            return None
        template = Template()
        _apply_async(app, signal, name, (name, None), {}, str_id(), Interceptor(app, template.keep))
        return template.outlet(publisher, name)
    except NotNative:
        return None


def _is_uniform(app: Celery) -> bool:
    conf = app.conf
    routers = app.amqp.router.routes
    return (
        all(type(router) is MapRoute for router in routers)
        and conf.task_protocol == 2
        and not conf.task_send_sent_event
        and not conf.task_compression
    )


def str_id() -> str:
    """A task id."""
    return str(uuid.uuid4())


def apply_async(
    app: Celery,
    signal: AsyncSignal,
    name: str,
    sender: Any,
    named: dict[str, Any],
    task_id: str,
    deliver: Callable[[Prepared], None],
    **options: Any,
) -> None:
    """Publishes one signal through Celery's own publishing.

    The message ends up with ``deliver`` where the core speaks to the broker,
    and with Celery's own producer otherwise.
    """
    producer: Producer | None
    arguments: tuple[Any, Any] = (name, sender)
    try:
        if app.conf.task_protocol != 2 or app.conf.task_send_sent_event or app.conf.task_compression:
            raise NotNative("Celery's own producer does that")
        publisher = publishers.for_app(app)

        def hand_over(body: bytes, route: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
            deliver(publisher.message(route, headers, properties, body))

        producer = Interceptor(app, hand_over)
        _apply_async(app, signal, name, arguments, named, task_id, producer, **options)
    except NotNative:
        # Plain data, with the core's marks for what JSON lacks: any serializer takes it.
        body = encode_body(name, sender, named, settings.get().max_message_size)
        plain_arguments, plain_named, _ = json.loads(body)
        _through_celery(app, signal, name, plain_arguments, plain_named, task_id, **options)


def _through_celery(
    app: Celery, signal: AsyncSignal, name: str, args: Any, kwargs: dict[str, Any], task_id: str, **options: Any
) -> None:
    from kombu.exceptions import OperationalError

    try:
        _apply_async(app, signal, name, args, kwargs, task_id, producer=None, **options)
    except SignalNotSent:
        raise
    except OperationalError as error:
        raise SignalNotSent(f"Celery could not publish it: {error}", "celery") from error


def _apply_async(
    app: Celery,
    signal: AsyncSignal,
    name: str,
    args: Any,
    kwargs: dict[str, Any],
    task_id: str,
    producer: Producer | None,
    **options: Any,
) -> None:
    """``apply_async`` as every way out calls it: names in place of values, ours in one header."""
    options = {**signal._celery_options(), **options}
    try:
        app.tasks[TASK].apply_async(
            args,
            kwargs,
            task_id=task_id,
            producer=producer,
            argsrepr=f"({name!r}, ...)",
            kwargsrepr="{...}",
            add_to_parent=False,
            headers={"async_signals": {"queue": "", "sent_at": time.time()}},
            **options,
        )
    except QueueNotFound as error:
        raise SignalNotSent(
            f"Celery's settings have no queue for signal {name!r}: {error}; add it to task_queues, or set "
            f"task_create_missing_queues",
            "unroutable",
        ) from error


class Interceptor(Producer):
    """A producer that never opens a channel: what Celery publishes ends with ``take``.

    Arguments:
        app: The app that publishes.
        take: Called with the body, the route, the headers and the properties of a message that Celery has finished.
    """

    def __init__(self, app: Celery, take: Take) -> None:
        super().__init__(None, auto_declare=False)
        self._take = take
        # Asked by Celery for its way to wrap errors; kombu connects lazily, so this does not.
        self.__connection__ = app.connection_for_write()

    @property
    def connection(self) -> Any:
        """The connection that is never made."""
        return self.__connection__

    def publish(self, body: Any, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but without its retries: the core has its own."""
        kwargs["retry"] = False
        return super().publish(body, *args, **kwargs)

    def _prepare(
        self,
        body: Any,
        serializer: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        compression: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> tuple[bytes, str, str]:
        args, kwargs, _ = body
        return encode_body(args[0], args[1], kwargs, settings.get().max_message_size), "application/json", "utf-8"

    def _publish(
        self,
        body: bytes,
        priority: int,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        exchange: str,
        declare: list[Any],
        *_: Any,
        **__: Any,
    ) -> None:
        route = routing.route(exchange, routing_key, declare)
        queue = route["declare"][0]["name"] if route["declare"] else routing_key
        ours = headers.get("async_signals")
        if isinstance(ours, dict) and not ours.get("queue"):
            ours["queue"] = queue
        known = {name: properties[name] for name in _PROPERTIES if properties.get(name) is not None}
        self._take(
            body,
            route,
            headers,
            {
                **known,
                "priority": priority or 0,
                "content_type": content_type,
                "content_encoding": content_encoding,
            },
        )


class Template:
    """The message that Celery would publish for a signal, to make the others after it."""

    def __init__(self) -> None:
        self._message: tuple[Any, Any, Any] | None = None

    def keep(self, body: bytes, route: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Keeps all of it but the body."""
        self._message = route, headers, properties

    def outlet(self, publisher: Publisher, name: str) -> Outlet | None:
        """The short way, or None if a message holds more than the core can fill in."""
        if self._message is None:
            return None
        route, headers, properties = self._message
        try:
            return Outlet(
                publisher,
                name,
                route=route,
                headers=headers,
                properties=properties,
                max_bytes=settings.get().max_message_size,
            )
        except (TypeError, ValueError):
            return None
