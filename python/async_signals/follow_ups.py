"""What a Celery task publishes in the place of a message that it cannot finish: another try, or a dead letter.

The core decides which; a stock worker's task publishes it here.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from celery import Celery, Task
from celery.exceptions import Reject

from . import pauses, publishing, routing, settings
from ._native import FollowUp, Incoming, encode_body
from .errors import DeadLettered, SignalNotSent
from .failures import Failure
from .routing import NotNative

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
#: How long a message that cannot be dead-lettered is kept from going round, in seconds.
_PAUSE = 1.0
#: How often a message may have been delivered before, at the least. All that a broker tells a stock worker is that one
#: was delivered before: also to a worker that never began it, and gave it back as it stopped.
_LEAST_MAX_DELIVERIES = 50
#: It came through the broker, so it goes back through it, however large it is.
_ANY_SIZE = 2**40


def dead_letter_level(kind: str | None) -> int:
    """How loud a log tells of a dead letter: the failures of receivers are in it already, each as an error."""
    return logging.WARNING if kind == "ReceiversFailed" else logging.ERROR


class TaskMessage:
    """The message that a task was started for.

    Attributes:
        incoming: The message as the core reads it.
        redelivered: Whether the broker says that it was taken before this time.
    """

    def __init__(self, task: Task, signal: Any, sender: Any, named: dict[str, Any]) -> None:
        self._app = task.app
        self._unencodable: Exception | None = None
        # Encoded before any receiver can change what is in it.
        try:
            body = encode_body(str(signal), sender, named, _ANY_SIZE)
        except Exception as error:
            body, self._unencodable = b"", error
        request = task.request
        info = request.delivery_info or {}
        self.redelivered = bool(info.get("redelivered"))
        self._taken_from = str(info.get("routing_key") or "")
        headers = {name: value for name, value in vars(request).items() if name not in _NOT_HEADERS}
        properties = {
            "correlation_id": str(request.id),
            "priority": info.get("priority") or 0,
            "delivery_mode": 2,
            "content_type": "application/json",
            "content_encoding": "utf-8",
        }
        if request.reply_to:
            properties["reply_to"] = str(request.reply_to)
        self.incoming = Incoming(headers, properties, str(info.get("exchange") or ""), self._taken_from, body)
        self._id: str = request.id

    @property
    def queue(self) -> str:
        """Its own queue."""
        return self.incoming.own_queue(self._taken_from)

    def requeue(self) -> None:
        """Counts that it was delivered before, and puts it back into its queue; dead-lettered when it came too often.

        The copy that is in hand can then be acknowledged.

        Raises:
            DeadLettered: It came too often.
        """
        most = max(_LEAST_MAX_DELIVERIES, int(settings.get().max_deliveries))
        follow_up = self.incoming.delivered_before(self._taken_from, most)
        if follow_up.dead_letter:
            self._end_as_dead_letter(follow_up)
        logger.warning("Message %s was delivered before; this is delivery %d", self._id, self.incoming.deliveries + 2)
        self._publish(follow_up)

    def publish_follow_ups(self, signal: str, failures: Iterable[Failure]) -> None:
        """Publishes what follows for receivers that failed: another try, or a dead letter."""
        failed = [failure.for_core() for failure in failures]
        for follow_up in self.incoming.failed(self._taken_from, failed):
            if not follow_up.dead_letter:
                self._publish(follow_up)
                logger.info(
                    "Signal %s[%s] is tried again at %s: %s", signal, self._id, follow_up.eta, follow_up.receivers
                )
            elif self._publish(follow_up):
                logger.log(
                    dead_letter_level(follow_up.kind),
                    "Signal %s[%s] is dead-lettered to %s: %s",
                    signal,
                    self._id,
                    self._dead_letters(),
                    follow_up.reason,
                )

    def set_aside(self) -> str:
        """Moves it to where paused messages wait, and returns that queue's name."""
        queue = pauses.queue_aside(self._app)
        self._publish_to(queue, {}, self.incoming.paused(self._taken_from))
        return queue

    def dead_letter(self, kind: str, reason: str) -> NoReturn:
        """Puts it into the dead-letter queue with the reason, and ends the task."""
        self._end_as_dead_letter(self.incoming.dead_letter(self._taken_from, kind, reason))

    def _end_as_dead_letter(self, follow_up: FollowUp) -> NoReturn:
        if not self._publish(follow_up):
            raise Reject(follow_up.reason, requeue=False)
        logger.error("Message %s is dead-lettered to %s: %s", self._id, self._dead_letters(), follow_up.reason)
        raise DeadLettered(f"to {self._dead_letters()}: {follow_up.reason}")

    def _dead_letters(self) -> str | None:
        return settings.get().dead_letter_queue(self.queue)

    def _publish(self, follow_up: FollowUp) -> bool:
        """Publishes it, and says whether there was a queue for it."""
        queue, arguments = self.queue, None
        if follow_up.dead_letter:
            dead_letters = self._dead_letters()
            if dead_letters is None:
                logger.error("Message %s is rejected: %s", self._id, follow_up.reason)
                return False
            queue, arguments = dead_letters, bounds(settings.get())
        self._publish_to(queue, arguments, follow_up)
        return True

    def _publish_to(self, queue: str, arguments: dict[str, Any] | None, follow_up: FollowUp) -> None:
        try:
            if self._unencodable is not None:
                raise self._unencodable
            try:
                publish(self._app, queue, arguments, follow_up)
            except SignalNotSent as error:
                if error.code != "precondition_failed":
                    raise
                # The queue is there with other bounds, which is better than no dead letter.
                logger.warning("Queue %s keeps the arguments it was declared with: %s", queue, error)
                publish(self._app, queue, None, follow_up)
        except Exception as error:
            # Not acknowledged: it comes again, but not at once.
            logger.exception("Message %s could not be put into %s", self._id, queue)
            time.sleep(_PAUSE)
            raise Reject(error, requeue=True) from error


def publish(app: Celery, queue: str, arguments: dict[str, Any] | None, follow_up: FollowUp) -> None:
    """Publishes a finished message straight to a queue, and returns when the broker has it.

    Arguments:
        arguments: What to declare the queue with, if it is not there; None: it is there.
    """
    try:
        publisher = publishing.publisher_for(app)
    except NotNative:
        properties = json.loads(follow_up.properties)
        left = properties.pop("expiration_ms")
        with app.producer_or_acquire() as producer:
            producer.publish(
                follow_up.body,
                exchange="",
                routing_key=queue,
                headers=json.loads(follow_up.headers),
                declare=[routing.durable_queue(queue, arguments)] if arguments is not None else [],
                expiration=None if left is None else left / 1000,
                **properties,
            )
        return
    route = routing.route_to_queue(queue, arguments) if arguments is not None else routing.route("", queue, [])
    publishing.confirm(publisher.follow_up(route, follow_up))


def bounds(options: settings.Settings) -> dict[str, Any]:
    """What dead-letter queues are declared with."""
    found: dict[str, Any] = {}
    if options.dead_letters_max_length is not None:
        found["x-max-length"] = int(options.dead_letters_max_length)
    if options.dead_letters_max_age is not None:
        found["x-message-ttl"] = int(options.dead_letters_max_age * 1000)
    return found
