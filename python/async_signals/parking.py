"""What a worker does with a message that it cannot finish: count it, or park it with the reason."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, NoReturn

from celery import Celery, Task
from celery.exceptions import Reject

from . import publishers, routing, settings
from ._native import encode_body
from .errors import Parked, SignalNotSent
from .routing import NotNative
from .waiting import off_hub

logger = logging.getLogger("async_signals")

#: What Celery adds to a message's headers when it makes a request of it.
_NOT_HEADERS = frozenset(
    (
        "properties",
        "reply_to",
        "correlation_id",
        "hostname",
        "delivery_info",
        "args",
        "kwargs",
        "called_directly",
        "is_eager",
        "loglevel",
        "logfile",
        "callbacks",
        "errbacks",
        "chain",
        "chord",
        "headers",
        "children",
        "_children",
        "_protected",
        "redelivered",
        "utc",
        "taskset",
    )
)
#: How long a message that cannot be parked is kept from going round, in seconds.
_PAUSE = 1.0


class Incoming:
    """The message that a task was started for.

    Attributes:
        id: The task's id.
        queue: The queue that it was sent to.
        deliveries: How often it was taken before by a worker that did not finish it.
        redelivered: Whether the broker says that it was taken before this time.
    """

    def __init__(self, task: Task, signal: Any, sender: Any, named: dict[str, Any]) -> None:
        request = task.request
        info = request.delivery_info or {}
        self._app = task.app
        self._call = signal, sender, named
        self._headers = {name: value for name, value in vars(request).items() if name not in _NOT_HEADERS}
        self._properties = {
            "correlation_id": request.id,
            "priority": info.get("priority") or 0,
            "delivery_mode": 2,
            "content_type": "application/json",
            "content_encoding": "utf-8",
        }
        if request.reply_to:
            self._properties["reply_to"] = request.reply_to
        ours = self._headers.get("async_signals")
        self._ours: dict[str, Any] = dict(ours) if isinstance(ours, dict) else {}
        self.id: str = request.id
        self.queue = str(self._ours.get("queue") or info.get("routing_key") or "")
        self.deliveries = _count(self._ours.get("deliveries"))
        self.redelivered = bool(info.get("redelivered"))

    @property
    def sent_at(self) -> float | None:
        """When it was sent, in seconds since 1970, if it says so."""
        value = self._ours.get("sent_at")
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def send_again(self) -> None:
        """Puts it back into its queue with its new count; the copy that is in hand can then be acknowledged."""
        logger.warning("Message %s was delivered before; this is delivery %d", self.id, self.deliveries + 1)
        self._ours["deliveries"] = self.deliveries
        self._publish(self.queue, None)

    def park(self, kind: str, reason: str) -> NoReturn:
        """Puts it into the dead-letter queue with the reason, and ends the task."""
        queue = settings.get().dead_letter_queue(self.queue)
        if queue is None:
            logger.error("Message %s is rejected: %s", self.id, reason)
            raise Reject(reason, requeue=False)
        self._ours["deliveries"] = self.deliveries
        self._ours["parked"] = {
            "reason": reason[:1000],
            "kind": kind,
            "queue": self.queue,
            "at": time.time(),
        }
        self._publish(queue, _bounds(settings.get()))
        logger.error("Message %s is parked in %s: %s", self.id, queue, reason)
        raise Parked(f"in {queue}: {reason}")

    def _publish(self, queue: str, arguments: dict[str, Any] | None) -> None:
        headers = {**self._headers, "async_signals": self._ours}
        try:
            body = encode_body(*self._call, settings.get().max_message_size * 2)
            try:
                publish(self._app, queue, arguments, headers, self._properties, body)
            except SignalNotSent as error:
                if error.code != "precondition_failed":
                    raise
                # The queue is there with other bounds, which is better than no parking.
                logger.warning("Queue %s keeps the arguments it was declared with: %s", queue, error)
                publish(self._app, queue, None, headers, self._properties, body)
        except Exception as error:
            # Not acknowledged: it comes again, but not at once.
            logger.exception("Message %s could not be put into %s", self.id, queue)
            time.sleep(_PAUSE)
            raise Reject(error, requeue=True) from error


def publish(
    app: Celery,
    queue: str,
    arguments: dict[str, Any] | None,
    headers: dict[str, Any],
    properties: dict[str, Any],
    body: bytes,
) -> None:
    """Publishes finished bytes straight to a queue, and returns when the broker has them.

    Arguments:
        arguments: What to declare the queue with, if it is not there; None: it is there.
    """
    try:
        publisher = publishers.for_app(app)
    except NotNative:
        with app.producer_or_acquire() as producer:
            producer.publish(
                body,
                exchange="",
                routing_key=queue,
                headers=json.loads(json.dumps(headers, default=str)),
                declare=[routing.queue(queue, arguments)] if arguments is not None else [],
                **properties,
            )
        return
    route = routing.to_queue(queue, arguments) if arguments is not None else routing.route("", queue, [])
    off_hub(publisher.message(route, headers, properties, body).confirm)


def _bounds(options: settings.Settings) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    if options.dead_letters_max_length is not None:
        bounds["x-max-length"] = int(options.dead_letters_max_length)
    if options.dead_letters_max_age is not None:
        bounds["x-message-ttl"] = int(options.dead_letters_max_age * 1000)
    return bounds


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
