"""Where the signals go, by Celery's settings and its router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from async_signals import names
from async_signals.routing import TASK

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.dispatcher import AsyncSignal


class Routes:
    """What Celery's router says of signals, without adding to the queues that the app knows.

    Arguments:
        app: The Celery app.
    """

    def __init__(self, app: Celery) -> None:
        # Copies: a router adds what is missing to the queues that it knows.
        self.router = app.amqp.Router(app.amqp.Queues(app.conf.task_queues, create_missing=True))

    def queue_of(self, signal: AsyncSignal) -> str | None:
        """The queue that Celery's router has for a signal; None where only a send would tell."""
        return queue_of(signal, self.router)


def queue_of(signal: AsyncSignal, router: Any) -> str | None:
    """The queue that a router of Celery's has for a signal; None where it cannot be known."""
    options = {} if signal.queue is None else {"queue": signal.queue}
    try:
        queue = router.route(options, TASK, args=(signal.name, None), kwargs={}).get("queue")
    except (Exception, SystemExit):
        return None  # a project's own router may need what only a send has
    return _name(queue)


def named_queues(app: Celery) -> list[str]:
    """Every queue that Celery's settings or a signal name, each once: Celery's own first."""
    from celery.utils.functional import maybe_evaluate

    routes = Routes(app)
    found: dict[str | None, None] = dict.fromkeys(app.amqp.queues)
    for route in map(maybe_evaluate, routes.router.routes):
        # Tables by task name or pattern; functions only answer for the task that they are asked for.
        targets = [*getattr(route, "map", {}).values(), *getattr(route, "patterns", {}).values()]
        found.update((_name(target.get("queue") if isinstance(target, dict) else target), None) for target in targets)
    for signal in names.known():
        # A queue of its own is where its messages went as long as nothing routed them.
        found.update(((routes.queue_of(signal), None), (signal.queue, None)))
    return [name for name in found if name is not None]


def _name(queue: Any) -> str | None:
    return None if queue is None else str(getattr(queue, "name", queue))
