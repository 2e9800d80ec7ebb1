"""What our worker takes from Redis, kombu can restore: the very script that takes, beside the installed kombu."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from kombu import Connection, Exchange, Queue
from kombu.transport.virtual import Channel
from redis import Redis

from servers.redis import RedisServer

TAKE = Path(__file__).parent.parent / "crates/async-signals/src/broker/redis/scripts/take.lua"
STEPS = ["", "\x06\x163", "\x06\x166", "\x06\x169"]


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.fresh_url()


@pytest.fixture
def client(redis_server: RedisServer, url: str) -> Iterator[Redis]:
    with redis_server.client(url) as client:
        yield client


@pytest.fixture
def channel(url: str) -> Iterator[Channel]:
    with Connection(url) as connection:
        yield connection.default_channel


def publish(channel: Channel, queue: Queue, body: Any, **properties: Any) -> None:
    with channel.connection.client.Producer(channel) as producer:
        producer.publish(
            body, exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue], retry=False, **properties
        )


def take(client: Redis, queue: str, limit: int = 10) -> list[Any]:
    """Runs the script as our worker does, once it has signed on."""
    client.hset("async_signals.generations", "me", 1)
    lists = [queue + step for step in STEPS]
    keys = ["unacked", "unacked_index", "async_signals.generations", *lists]
    end = f',"",{json.dumps(queue)}]'
    return client.eval(TAKE.read_text(), len(keys), *keys, "me", 1, 0, limit, len(lists), 1, end)


def unacked(client: Redis) -> dict[str, Any]:
    return {tag.decode(): json.loads(record) for tag, record in client.hgetall("unacked").items()}


def test_a_record_has_the_shape_that_kombu_gives_it(client: Redis, channel: Channel) -> None:
    queue = Queue('or"ders', Exchange("shop", "topic"), routing_key="order.placed")
    publish(channel, queue, {"number": 1}, headers={"id": "ü"})
    publish(channel, queue, {"number": 2})
    message = queue(channel).get(no_ack=False)
    [theirs] = unacked(client).values()
    assert message.payload == {"number": 1}
    assert [type(part) for part in theirs] == [dict, str, str]
    channel.qos.reject(message.delivery_tag, requeue=True)

    waiting = [json.loads(envelope) for envelope in reversed(client.lrange(queue.name, 0, -1))]
    take(client, queue.name)
    ours = unacked(client)
    assert ours == {"me.1.1": [waiting[0], "", queue.name], "me.1.2": [waiting[1], "", queue.name]}
    assert client.zrange("unacked_index", 0, -1) == [b"me.1.1", b"me.1.2"]


def test_kombu_restores_what_a_dead_worker_of_ours_held(client: Redis, channel: Channel) -> None:
    queue = Queue("orders", Exchange("shop", "topic"), routing_key="order.*")
    for number, priority in [(1, 0), (2, 7), (3, 0)]:
        publish(channel, queue, {"number": number}, priority=priority, headers={"id": str(number)})
    assert len(take(client, queue.name)) == 4  # a queue and its messages, for each of two lists
    assert queue(channel).get() is None
    # Its bindings are gone with the worker that declared them, which loses what kombu itself had taken.
    client.delete("_kombu.binding.shop", "_kombu.binding_permanent.shop")

    channel.qos.restore_visible(num=None, interval=1)
    assert len(unacked(client)) == 3, "not before its timeout"
    client.zadd("unacked_index", {f"me.1.{number}": number for number in (1, 2, 3)})
    channel.qos.restore_visible(num=None, interval=1)
    assert unacked(client) == {}
    assert client.zcard("unacked_index") == 0
    # kombu 5.3 restores all of them as the most urgent.
    waiting = [client.llen(queue.name + step) for step in STEPS]
    assert waiting == ([2, 0, 1, 0] if kombu.VERSION >= (5, 4) else [3, 0, 0, 0])

    messages = [queue(channel).get(no_ack=False) for _ in range(3)]
    assert {message.payload["number"] for message in messages} == {1, 2, 3}
    assert all(message.headers["redelivered"] for message in messages)
    assert all(message.delivery_info["redelivered"] for message in messages)
    assert [message.headers["id"] for message in messages] == [str(message.payload["number"]) for message in messages]
