"""Other Celery tasks, met on the queues of signals: run by Celery's own strategy, request and tracer.

What is done here is what `celery.worker.consumer` does around a strategy. The
strategy then makes Celery's own `Request`, whose every acknowledgement,
rejection, event, signal, stored result, retry and errback is Celery's.

Left out, since signals know neither: rate limits and revoking.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Celery
from celery.app import trace
from celery.concurrency.base import BasePool
from celery.exceptions import InvalidTaskError, WorkerLostError
from celery.worker import state
from kombu import Message
from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content

from async_signals import pauses
from async_signals.routing import TASK

from .job import Job
from .listeners import Listeners

logger = logging.getLogger("async_signals")

#: `limits(soft, hard)`: what holds a task to its time limits, in seconds or None.
Limits = Callable[[float | None, float | None], AbstractContextManager[Any]]
#: Celery's word for a function that takes a message and has its task run.
_Handler = Callable[..., Any]
#: How long a message that Celery failed to settle is kept from coming again, in seconds.
_PAUSE = 1.0


class CeleryTasks:
    """Runs tasks of the app in the calling thread; any number of threads at once.

    Arguments:
        app: The Celery app, whose task modules are imported.
        hostname: The worker's name.
        events: What Celery's requests tell their events to: `enabled`, and `send(type, **fields)`.
        limits: Holds a task to its time limits; without it there are none.
    """

    def __init__(self, app: Celery, hostname: str, events: Any, limits: Limits | None = None) -> None:
        # Celery's own, for workers: the app is everybody's default, and all its tasks are there.
        trace.setup_worker_optimizations(app, hostname)
        self._app = app
        self._hostname = hostname
        self._accept = prepare_accept_content(app.conf.accept_content)
        self._consumer = _Consumer(app, hostname, events, _Here(limits))
        self._handlers: dict[str, _Handler] = {}
        self._listeners = Listeners(app, TASK)
        #: Where signals wait that are paused.
        self.queue_aside = pauses.queue_aside(app)

    def knows(self, task: str) -> bool:
        """Whether the app has a task of this name."""
        return task in self._app.tasks

    @property
    def wants_signals(self) -> bool:
        """Whether signals are to be run here too, since somebody watches or changes how Celery runs tasks."""
        return self._listeners.present

    def run(self, job: Job) -> None:
        """Runs one task to its end and settles its message. Never raises."""
        channel = _Channel(job)
        try:
            message = _message(job, channel, self._accept)
            _check(message, job.task)
            handler = self._handler(job.task)
        except ContentDisallowed as error:
            job.unfit("Refused", str(error))
            return
        except KeyError:
            job.unfit("UnknownTask", f"this worker has no task {job.task!r}")
            return
        except Exception as error:
            job.unfit("Malformed", f"{type(error).__name__}: {error}")
            return
        try:
            handler(message, None, message.ack_log_error, message.reject_log_error, ())
        except InvalidTaskError as error:
            job.unfit("Malformed", str(error))
        except Exception as error:
            if channel.request is None:
                job.unfit("Malformed", f"{type(error).__name__}: {error}")
            else:
                logger.exception("Celery failed to end task %s[%s]", job.task, job.id)
        if channel.request is not None:
            # Celery's strategy books a message with an eta as waiting after it has run it: strike it off.
            state.task_ready(channel.request)
        if channel.request is not None and not channel.settled:
            # As if its worker had died with it; but not at once, since it may well fail again.
            time.sleep(_PAUSE)
            job.unfinished()

    def _handler(self, name: str) -> _Handler:
        handler = self._handlers.get(name)
        if handler is None:
            task = self._app.tasks[name]
            # Asked of the module each time: Sentry and its like put their own in its place.
            task.__trace__ = trace.build_tracer(name, task, self._app.loader, self._hostname, app=self._app)
            if task.rate_limit:
                logger.warning("Task %s has a rate limit, which only Celery's own worker keeps", name)
            handler = self._handlers[name] = task.start_strategy(self._app, self._consumer)
        return handler


class _Channel:
    """What a kombu message settles itself through."""

    #: None: kombu need not ask whether messages are to be acknowledged.
    no_ack_consumers = None

    def __init__(self, job: Job) -> None:
        self._job = job
        #: Celery's request, once its task has begun.
        self.request: Any = None
        self.settled = False

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        self.settled = True
        self._job.done()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.settled = True
        if requeue:
            self._job.unfinished()
        else:
            self._job.rejected()


class _Here(BasePool):
    """A pool that runs a task where it is handed in, and tells of its end as Celery's prefork pool does."""

    def __init__(self, limits: Limits | None) -> None:
        super().__init__(limit=1)
        self._limits = limits or (lambda _soft, _hard: nullcontext())

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        *,
        callback: Callable[[Any], Any],
        accept_callback: Callable[[int, float], Any],
        error_callback: Callable[[ExceptionInfo], Any],
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_options: Any,
    ) -> None:
        accept_callback(os.getpid(), time.monotonic())
        try:
            with self._limits(soft_timeout, timeout):
                ended = target(*args, **kwargs)
        except Exception:
            error_callback(ExceptionInfo())
        except BaseException as error:
            # A task that calls sys.exit(): in the prefork pool this is the end of its process, and of nothing else.
            try:
                raise WorkerLostError(f"Task ended its worker: {error!r}") from error
            except WorkerLostError:
                error_callback(ExceptionInfo())
        else:
            callback(_as_told(ended))


def _as_told(ended: tuple[int, Any, float]) -> tuple[int, Any, float]:
    """How a task ended, in the words that a process of Celery's pool has for its parent: without the wrapping."""
    failed, returned, _ = ended
    if failed and isinstance(returned.exception, ExceptionWithTraceback):
        returned.exception = returned.exception.exc
    return ended


class _Consumer:
    """As much of Celery's consumer as its strategy asks for."""

    disable_rate_limits = True
    connection_errors: tuple[type[Exception], ...] = ()

    def __init__(self, app: Celery, hostname: str, events: Any, pool: BasePool) -> None:
        self.app = app
        self.hostname = hostname
        self.event_dispatcher = events
        self.pool = pool
        self.controller = SimpleNamespace(app=app, hostname=hostname, state=state)
        self.task_buckets: dict[str, None] = defaultdict(lambda: None)
        # A task reaches us when it is due: there is nothing to wait for, and no window to widen meanwhile.
        self.timer = SimpleNamespace(call_at=lambda _when, function, args, **_options: function(*args))
        self.qos = SimpleNamespace(increment_eventually=lambda: None)

    def apply_eta_task(self, request: Any) -> None:
        state.task_reserved(request)
        self.on_task_request(request)

    def on_task_request(self, request: Any) -> None:
        request.message.channel.request = request
        request.execute_using_pool(self.pool)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> None:
        self.on_task_request(request)

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: int) -> None:
        self.on_task_request(request)


def _message(job: Job, channel: _Channel, accept: set[str]) -> Message:
    properties = job.properties
    return Message(
        body=job.body,
        channel=channel,
        delivery_tag=job.id,
        content_type=properties.get("content_type"),
        content_encoding=properties.get("content_encoding"),
        delivery_info={"exchange": job.exchange, "routing_key": job.routing_key, "redelivered": job.redelivered},
        properties=properties,
        headers=job.headers,
        accept=accept,
    )


def _check(message: Message, task: str) -> None:
    """Raises for what Celery's worker would acknowledge and forget, or stumble over."""
    if message.errors:
        message._reraise_error()
    payload = message.decode()
    if isinstance(payload, dict) and "args" in payload:
        return  # Both of Celery's protocols in one message, as another language's client may send it.
    if not isinstance(payload, (list, tuple)) or len(payload) != 3:
        raise InvalidTaskError("its body is not made of arguments, named arguments and what follows")
    if task == TASK and any((payload[2] or {}).values()):
        # Otherwise whoever may send a signal could have any task run.
        raise ContentDisallowed("it asks for another task to be run after it, which signals do not")
