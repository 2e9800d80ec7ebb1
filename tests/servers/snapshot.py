"""Everything that a publisher leaves on a broker, in a form that two publishers can be compared by."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import amqp
import kombu
import kombu.compression

from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ORIGIN = re.compile(r"gen\d+@")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*(?:\+\d\d:\d\d|Z)?")


def redis(server: RedisServer, url: str) -> dict[str, Any]:
    """Every key of the database."""
    found: dict[str, Any] = {}
    with server.client(url) as client:
        for key in client.keys("*"):
            if b"_kombu.binding_permanent." in key and kombu.VERSION < (5, 7):
                continue  # a set that kombu writes since 5.7, we always, and no earlier one looks at
            kind = client.type(key).decode()
            found[f"{kind} {key.decode()}"] = {
                "list": lambda key=key: [_envelope(json.loads(text)) for text in client.lrange(key, 0, -1)],
                "set": lambda key=key: sorted(map(_binding, client.smembers(key))),
                "zset": lambda key=key: sorted(member.decode() for member in client.zrange(key, 0, -1)),
                "hash": lambda key=key: client.hgetall(key),
                "string": lambda key=key: client.get(key),
            }[kind]()
    return masked(found)


#: Between the parts of a binding.
SEPARATOR = "\x06\x16"


def _binding(member: bytes) -> str:
    """One of kombu's; the second part follows from the first, and kombu 5.3 wrote it in other words."""
    parts = member.decode().split(SEPARATOR)
    return SEPARATOR.join([parts[0], *parts[2:]]) if kombu.VERSION < (5, 4) else member.decode()


def sqlite(url: str) -> dict[str, Any]:
    """Every row of kombu's tables, and the tables' own definition."""
    path = Path(url.removeprefix("sqla+sqlite:///"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        messages = database.execute(
            "SELECT q.name, m.payload, m.visible, m.version FROM kombu_message m JOIN kombu_queue q"
            " ON q.id = m.queue_id ORDER BY m.id"
        )
        tables = database.execute("SELECT name FROM pragma_table_info('kombu_message') ORDER BY name")
        return masked(
            {
                "messages": [(name, _envelope(json.loads(text)), *rest) for name, text, *rest in messages],
                "queues": sorted(database.execute("SELECT name FROM kombu_queue")),
                "columns": sorted(tables),
            }
        )


def rabbitmq(server: RabbitmqServer, url: str) -> dict[str, Any]:
    """Every queue, exchange and binding of the virtual host, and every message."""
    found: dict[str, Any] = {
        "queues": _listed(server, url, "queues", "name", "durable", "auto_delete", "exclusive", "arguments"),
        "exchanges": _listed(server, url, "exchanges", "name", "type", "durable", "auto_delete", "arguments"),
        "bindings": _listed(server, url, "bindings", "source", "destination", "routing_key", "arguments"),
        "messages": {},
    }
    with kombu.Connection(url) as connection, connection.channel() as channel:
        for queue in found["queues"]:
            taken = list(iter(lambda name=queue["name"]: channel.basic_get(name, no_ack=True), None))
            if taken:
                found["messages"][queue["name"]] = [_amqp(message) for message in taken]
    return masked(found)


def _listed(server: RabbitmqServer, url: str, what: str, *columns: str) -> list[dict[str, Any]]:
    rows = [{column: row[column] for column in columns} for row in server.listed(what, url)]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def _amqp(message: amqp.Message) -> dict[str, Any]:
    # Celery leaves the priority out when the queue is given by name; to AMQP that is priority 0.
    properties = {"priority": 0, **message.properties}
    headers = properties.pop("application_headers", {})
    info = {key: message.delivery_info[key] for key in ("exchange", "routing_key", "redelivered")}
    return {"properties": properties, "headers": headers, "info": info, "body": _body(message.body, headers)}


def _envelope(envelope: dict[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(envelope["body"])
    return {**envelope, "body": _body(body, envelope["headers"])}


def _body(body: bytes | str, headers: dict[str, Any]) -> Any:
    if headers.get("compression"):
        body = kombu.compression.decompress(body, headers["compression"])
    return json.loads(body)


def masked(value: Any, names: dict[str, str] | None = None) -> Any:
    """Without what differs from run to run. Identifiers are numbered as they come, so that equal ones stay equal."""
    names = {} if names is None else names
    if isinstance(value, dict):
        # In the order of the keys: publishers may write them in any.
        result = {key: masked(value[key], names) for key in sorted(value, key=str)}
        if "correlation_id" in result:
            # Celery leaves these options of `apply_async` among the properties as well, where nobody reads them.
            result = {key: item for key, item in result.items() if key not in {"argsrepr", "kwargsrepr"}}
        if isinstance(result.get("expiration"), str):
            result["expiration"] = f"about {round(int(result['expiration']) / 10_000) * 10} s"
        return result
    if isinstance(value, list | tuple):
        return [masked(item, names) for item in value]
    if isinstance(value, bytes):
        return masked(value.decode(), names)
    if isinstance(value, str):
        value = _UUID.sub(lambda found: names.setdefault(found[0], f"<uuid {len(names) + 1}>"), value)
        return _TIME.sub("<time>", _ORIGIN.sub("gen<pid>@", value))
    return value
