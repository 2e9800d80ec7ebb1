"""What a worker's process knows of a message that it is to run."""

from __future__ import annotations

from typing import Any, Protocol


class Job(Protocol):
    """One message, and the promise to say what became of it.

    The native worker makes them. Each is to be ended once, by one of `done`,
    `rejected`, `unfinished` and `unfit`; the first of them counts.

    Attributes:
        id: The task's id.
        task: The task's name.
        headers: Celery's headers, as they were sent.
        properties: content_type, content_encoding, correlation_id, reply_to, priority, delivery_mode.
        body: The body, as it was sent.
        queue: The queue it was taken from.
        exchange: The exchange that it was published to, as far as the broker tells.
        routing_key: The key that it was published with.
        redelivered: Whether it was taken before and not settled.
    """

    @property
    def id(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def headers(self) -> dict[str, Any]: ...
    @property
    def properties(self) -> dict[str, Any]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def queue(self) -> str: ...
    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def redelivered(self) -> bool: ...

    def done(self) -> None:
        """It is acknowledged."""

    def rejected(self) -> None:
        """Nobody is to run it: dropped, or handed to the queue's dead-letter exchange."""

    def unfinished(self) -> None:
        """It goes back into its queue."""

    def unfit(self, kind: str, reason: str) -> None:
        """It cannot be run here, and is dead-lettered.

        Arguments:
            kind: A word for programs: `UnknownTask`, `Malformed`, `Refused`.
            reason: A sentence for people.
        """
