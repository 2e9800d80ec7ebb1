"""Which workers answer, by Celery's remote control."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from async_signals.errors import SignalNotSent
from async_signals.routing import TASK

if TYPE_CHECKING:
    from celery import Celery


@dataclasses.dataclass(frozen=True)
class WorkerInfo:
    """A worker that has answered.

    Attributes:
        name: Its node name.
        pool: What runs its tasks, as ``celery inspect stats`` names it.
        queues: The queues that it reads.
        runs_signals: Whether it has the task that carries signals; None: it did not say.
        processes: How many processes run receivers; None: it did not say.
    """

    name: str
    pool: str | None
    queues: tuple[str, ...]
    runs_signals: bool | None
    processes: int | None


def workers(app: Celery, timeout: float = 1.0) -> list[WorkerInfo] | None:
    """The workers that answer within so many seconds, by their names; None: this broker carries no remote control.

    Raises:
        SignalNotSent: The broker cannot be reached.
    """
    with app.connection_for_write(connect_timeout=timeout + 1) as connection:
        if not connection.supports_exchange_type("fanout"):
            return None
        try:
            connection.ensure_connection(max_retries=1, timeout=timeout + 1)
            inspect = app.control.inspect(timeout=timeout, connection=connection)
            queues = inspect.active_queues() or {}
            stats = (inspect.stats() or {}) if queues else {}
            registered = (inspect.registered() or {}) if queues else {}
        except Exception as error:
            code = "unreachable" if isinstance(error, connection.connection_errors) else "refused"
            raise SignalNotSent(f"{type(error).__name__}: {error}", code) from error
    return [_described(name, queues[name], stats.get(name), registered.get(name)) for name in sorted(queues)]


def _described(name: str, queues: Any, stats: Any, registered: Any) -> WorkerInfo:
    pool = stats.get("pool") if isinstance(stats, dict) else None
    pool = pool if isinstance(pool, dict) else {}
    processes = pool.get("processes")
    return WorkerInfo(
        name=name,
        pool=None if pool.get("implementation") is None else str(pool["implementation"]),
        queues=tuple(str(queue.get("name")) for queue in queues or () if isinstance(queue, dict)),
        runs_signals=None
        if not isinstance(registered, list)
        else any(str(task).split(" ")[0] == TASK for task in registered),
        processes=len(processes) if isinstance(processes, list) else None,
    )
