"""A producer for Celery to publish a signal with: what Celery has finished goes to the core, or to threads of ours.

``apply_async`` routes the message, makes its headers, and calls everybody who has a say in it, in the sender's thread
and within its context. Only the last step, which talks to a broker, is another one.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery, signals
from celery.app.routes import MapRoute
from celery.exceptions import QueueNotFound
from celery.utils.time import utcoffset
from kombu import Producer
from kombu.compression import compress
from kombu.serialization import dumps as serialize
from kombu.serialization import prepare_accept_content
from kombu.utils.json import dumps

from async_signals import compat, publishing, settings
from async_signals._native import MessageTemplate, Publisher, encode_body
from async_signals.errors import BrokerMisconfigured, SignalNotSent
from async_signals.publishing.celery_producer import CeleryMessage

from . import TASK, NotNative, exchange, route

if TYPE_CHECKING:
    from async_signals.dispatcher import AsyncSignal
    from async_signals.publishing import Message

compat.check_producer()

#: What the core takes over of a message's properties as Celery made them.
_PROPERTIES = ("correlation_id", "reply_to", "delivery_mode", "expiration")
#: What ``apply_async`` is told that only one send knows; such a send is made by it.
SEND_OPTIONS = ("countdown", "eta", "expires", "priority", "queue")

#: Takes a message that Celery has finished.
Take = Callable[["Message"], None]

#: By app, the connection that a producer is made with. It is never connected.
_connections: weakref.WeakKeyDictionary[Celery, Any] = weakref.WeakKeyDictionary()


def is_observed(app: Celery) -> bool:
    """Whether anybody wants to see, or to change, each message that Celery publishes."""
    listened_to = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
    functions = ((type(app), "send_task"), (app.Task, "apply_async"), (Producer, "publish"))
    return (
        any(signal.receivers for signal in listened_to)
        or any(compat.is_patched(owner, name) for owner, name in functions)
        or "send_task" in vars(app)
    )


def publisher_for(app: Celery) -> Publisher | None:
    """The app's native publisher; None if the core does not speak to its broker.

    Raises:
        BrokerMisconfigured: No worker of the app would read a signal, or its broker settings cannot be right.
    """
    if "application/json" not in prepare_accept_content(app.conf.accept_content or ()):
        raise BrokerMisconfigured(
            f"accept_content is {app.conf.accept_content!r}, so that a worker throws signals away unread; "
            f'add "json" to it',
            "misconfigured",
        )
    try:
        return publishing.publisher_for(app)
    except NotNative:
        return None


def template(app: Celery, publisher: Publisher | None, signal: AsyncSignal, name: str) -> MessageTemplate | None:
    """What makes each message of a signal; None if each must go through ``apply_async``.

    Nobody may be looking on, as :func:`is_observed` tells.

    Raises:
        SignalNotSent: Celery knows no such queue.
    """
    if publisher is None or not _is_uniform(app) or signal.expires is not None:
        return None
    producer = _TemplateProducer(app)
    try:
        _apply_async(app, signal, name, (name, None), {}, new_id(), producer)
        [(where, headers, properties)] = producer.made
        if (producer.sent_event is not None) != bool(app.conf.task_send_sent_event):
            return None  # somebody has another way to send events
        return MessageTemplate(
            publisher,
            name,
            route=where,
            headers=headers,
            properties=properties,
            max_bytes=settings.get().max_message_size,
            sent_event=producer.sent_event,
        )
    except (NotNative, TypeError, ValueError):
        return None  # a route that the core cannot take, or more in the message than it can fill in


def _is_uniform(app: Celery) -> bool:
    conf = app.conf
    return (
        all(type(router) is MapRoute for router in app.amqp.router.routes)
        and conf.task_protocol == 2
        and not conf.task_compression
        and not conf.task_inherit_parent_priority
    )


def new_id() -> str:
    """A task id."""
    return str(uuid.uuid4())


def apply_async(
    app: Celery,
    publisher: Publisher | None,
    signal: AsyncSignal,
    name: str,
    sender: Any,
    named: dict[str, Any],
    task_id: str,
    take: Take,
    **options: Any,
) -> None:
    """Has Celery make the message of one send, and ``take`` hand it over.

    Raises:
        SignalNotSent: Celery knows no such queue, or whatever ``take`` raises.
    """
    producer = _SendProducer(app, publisher, task_id, take)
    _apply_async(app, signal, name, (name, sender), named, task_id, producer, **options)


def _apply_async(
    app: Celery,
    signal: AsyncSignal,
    name: str,
    args: tuple[Any, Any],
    kwargs: dict[str, Any],
    task_id: str,
    producer: Producer,
    **options: Any,
) -> None:
    """``apply_async`` as it is called for every signal: names in place of values, ours in one header."""
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
            **{**signal._celery_options(), **options},
        )
    except QueueNotFound as error:
        raise SignalNotSent(
            f"Celery's settings have no queue for signal {name!r}: {error}; add it to task_queues, or set "
            f"task_create_missing_queues",
            "unroutable",
        ) from error


class UnconnectedProducer(Producer):
    """A producer that never opens a channel. Subclasses say what becomes of a message."""

    def __init__(self, app: Celery) -> None:
        super().__init__(None, auto_declare=False)
        self._app = app
        connection = _connections.get(app)
        if connection is None:
            connection = _connections[app] = app.connection_for_write()
        # Asked by Celery for its way to wrap errors; kombu connects lazily, so this does not.
        self.__connection__ = connection

    @property
    def connection(self) -> Any:
        """The connection that is never made."""
        return self.__connection__


class _SignalProducer(UnconnectedProducer):
    """What both producers for signals have in common: the body in the core's JSON, and events beside the message."""

    def publish(self, body: Any, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but without its retries: the core has its own."""
        if isinstance(body, dict) and "task" not in body:
            # Protocol 1 shows the values themselves, which are nobody's business but the receivers'.
            event = {**body, "args": "(...)", "kwargs": "{...}"} if self._app.conf.task_protocol == 1 else body
            self._publish_event(event, kwargs)
            return None
        kwargs["retry"] = False
        return super().publish(body, *args, **kwargs)

    def _publish_event(self, event: dict[str, Any], arguments: dict[str, Any]) -> None:
        """An event ``task-sent`` goes beside its message (``task_send_sent_event``)."""
        raise AssertionError("a subclass takes it")

    def _prepare(
        self,
        body: Any,
        serializer: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        compression: str | None = None,
        headers: dict[str, Any] | None = None,
    ) -> tuple[bytes, str, str]:
        encoded = _encoded(body)
        if compression:
            encoded, compressed = compress(encoded, compression)
            if headers is not None:
                headers["compression"] = compressed
        return encoded, "application/json", "utf-8"


def _encoded(body: Any) -> bytes:
    """The body that Celery made, of protocol 2 or 1, with its values in the core's JSON."""
    limit = settings.get().max_message_size
    if not isinstance(body, dict):
        args, kwargs, _ = body
        return encode_body(args[0], args[1], kwargs, limit)
    args, kwargs = body["args"], body["kwargs"]
    plain_args, plain_kwargs, _ = json.loads(encode_body(args[0], args[1], kwargs, limit))
    encoded: str = dumps({**body, "args": plain_args, "kwargs": plain_kwargs})
    return encoded.encode()


class CoreProducer(UnconnectedProducer):
    """Ends with what the core takes: body, route, headers and properties."""

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
        where = route(exchange, routing_key, declare)
        queue = where["declare"][0]["name"] if where["declare"] else routing_key
        ours = headers.get("async_signals")
        if isinstance(ours, dict) and not ours.get("queue"):
            ours["queue"] = queue
        known = {name: properties[name] for name in _PROPERTIES if properties.get(name) is not None}
        known.update(priority=priority or 0, content_type=content_type, content_encoding=content_encoding)
        self._take(body, where, headers, known)

    def _take(self, body: bytes, where: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
        raise AssertionError("a subclass takes it")


class _SendProducer(_SignalProducer, CoreProducer):
    """Hands one message over, to the native publisher or to Celery's own producer on a thread of ours."""

    def __init__(self, app: Celery, publisher: Publisher | None, task_id: str, take: Take) -> None:
        super().__init__(app)
        self._publisher = publisher
        self._task_id = task_id
        self._hand_over = take

    def publish(self, body: Any, *args: Any, **kwargs: Any) -> Any:
        """Finishes the message for whoever publishes it."""
        if self._publisher is None and not (isinstance(body, dict) and "task" not in body):
            self._hand_to_celery(body, kwargs)
            return None
        try:
            return super().publish(body, *args, **dict(kwargs))
        except NotNative:  # a route that the core cannot take
            self._hand_to_celery(body, kwargs)

    def _hand_to_celery(self, body: Any, arguments: dict[str, Any]) -> None:
        # Whatever serializer is asked for: values become plain data, with the core's marks for what JSON lacks.
        plain = json.loads(_encoded(body))
        body = plain if isinstance(body, dict) else tuple(plain)
        self._hand_over(CeleryMessage(self._app, self._task_id, body, arguments))

    def _take(self, body: bytes, where: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
        assert self._publisher is not None
        self._hand_over(self._publisher.message(where, headers, properties, body))

    def _publish_event(self, event: dict[str, Any], arguments: dict[str, Any]) -> None:
        if self._publisher is not None:
            with contextlib.suppress(NotNative):
                parts = _event_parts(event, arguments)
                with contextlib.suppress(SignalNotSent):  # its message is sent all the same
                    self._publisher.publish_event(
                        parts["exchange"], parts["routing_key"], parts["headers"], parts["properties"], parts["body"]
                    )
                return
        CeleryMessage(self._app, str(event.get("uuid")), event, {**arguments, "retry": False}).publish_event()


class _TemplateProducer(_SignalProducer, CoreProducer):
    """Keeps all of a message but the body, and the event beside it, to make others after them.

    Attributes:
        made: The route, headers and properties of each message.
        sent_event: What makes the event ``task-sent`` of each message; None: there is none.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self.made: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
        self.sent_event: dict[str, Any] | None = None

    def _take(self, body: bytes, where: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> None:
        self.made.append((where, headers, properties))

    def _publish_event(self, event: dict[str, Any], arguments: dict[str, Any]) -> None:
        parts = _event_parts(event, arguments)
        if parts["properties"]["content_type"] != "application/json":
            raise NotNative(f"event_serializer is {self._app.conf.event_serializer!r}")
        del parts["body"]
        # The fields as the receiver reads them: whatever the serializer makes of them.
        self.sent_event = {
            **parts,
            "fields": dict(event),
            "forward_clock": self._app.clock.forward,
            "utcoffset": utcoffset,
        }


def _event_parts(event: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """What ``celery.events.EventDispatcher`` has a producer publish, as the core takes it.

    Raises:
        NotNative: There is more to it.
    """
    declare: list[Any] = arguments.get("declare") or []
    if [entity.name for entity in declare] != [arguments.get("exchange")]:
        raise NotNative("an event goes to an exchange that is not its own")
    [declared] = declare
    content_type, content_encoding, body = serialize(event, arguments.get("serializer"))
    return {
        "exchange": exchange(declared),
        "routing_key": arguments["routing_key"],
        "headers": dict(arguments.get("headers") or {}),
        "properties": {
            "content_type": content_type,
            "content_encoding": content_encoding,
            "delivery_mode": arguments.get("delivery_mode") or declared.delivery_mode or 2,
            "priority": 0,
        },
        "body": body.encode() if isinstance(body, str) else body,
    }
