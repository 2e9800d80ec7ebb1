"""kombu transports as other packages bring them: under a scheme that everybody knows, and writing elsewhere."""

import threading
from typing import Any

from kombu.transport import redis


class Channel(redis.Channel):
    """Keeps its queues under keys of its own."""

    def _put(self, queue: str, message: Any, **options: Any) -> Any:
        return super()._put(f"elsewhere.{queue}", message, **options)


class Transport(redis.Transport):
    """What `broker_transport` names."""

    Channel = Channel


def patch() -> None:
    """What a package does that changes kombu's own transport in place."""
    put = redis.Channel._put

    def _put(self: redis.Channel, queue: str, message: Any, **options: Any) -> Any:
        return put(self, f"elsewhere.{queue}", message, **options)

    redis.Channel._put = _put


class SilentChannel(redis.Channel):
    """Never answers."""

    def queue_declare(self, *arguments: Any, **options: Any) -> Any:
        threading.Event().wait()


class Silent(redis.Transport):
    """A broker that never answers."""

    Channel = SilentChannel
