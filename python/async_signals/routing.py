"""Celery's routes and queues, as the core takes them."""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue
from kombu.transport.base import to_rabbitmq_queue_arguments


class NotNative(Exception):
    """The core does not speak this; Celery's own producer does."""


def route(exchange: str, routing_key: str, declare: list[Any] | None) -> dict[str, Any]:
    """Where Celery would publish, and what it would declare first.

    Raises:
        NotNative: Something in it is not the core's to do.
    """
    return {
        "exchange": exchange,
        "routing_key": routing_key,
        "declare": [_queue(entity) for entity in declare or ()],
    }


def to_queue(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Straight to a durable queue that is declared, if it is not there, with these arguments."""
    return route("", name, [queue(name, arguments)])


def queue(name: str, arguments: dict[str, Any] | None = None) -> Queue:
    """A durable queue that is bound to nothing but the default exchange."""
    return Queue(name, Exchange(""), routing_key=name, queue_arguments=arguments)


def _queue(entity: Any) -> dict[str, Any]:
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


def _exchange(entity: Exchange | None) -> dict[str, Any] | None:
    if entity is None or not entity.name:
        return None
    if entity.type == "fanout" or entity.type not in ("direct", "topic"):
        raise NotNative(f"exchange {entity.name!r} is of type {entity.type!r}")
    return {
        "name": entity.name,
        "kind": entity.type,
        "durable": bool(entity.durable),
        "auto_delete": bool(entity.auto_delete),
        "declare": not (entity.no_declare or entity.passive),
        "arguments": dict(entity.arguments or {}),
    }
