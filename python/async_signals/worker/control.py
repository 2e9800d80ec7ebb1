"""Celery's remote control: what a worker answers to `celery inspect`, `celery control`, `celery status` and Flower."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery
from celery.utils.collections import AttributeDict
from celery.worker.control import Panel
from kombu import Connection
from kombu.utils.url import maybe_sanitize_url

from .reports import Report, Reports

logger = logging.getLogger("async_signals")

#: Celery's own functions, which ask for nothing but the app.
_CELERYS = ("ping", "registered", "dump_tasks", "conf", "dump_conf", "clock", "report", "hello", "memsample")
#: Celery's commands for what this worker does not have. It says so, rather than nothing.
_REFUSED = {
    "revoke": "it does not revoke tasks",
    "terminate": "it does not terminate tasks",
    "revoke_by_stamped_headers": "it does not revoke tasks",
    "rate_limit": "it keeps no rate limits",
    "time_limit": "its time limits are set when it is started",
    "autoscale": "its processes are set when it is started",
    "pool_grow": "its processes are set when it is started",
    "pool_shrink": "its processes are set when it is started",
    "pool_restart": "its processes are restarted with it",
    "add_consumer": "its queues are set when it is started",
    "cancel_consumer": "its queues are set when it is started; `manage.py signals pause` keeps it from reading one",
}


class Pool(Protocol):
    """What the commands need of the worker's processes."""

    def info(self) -> dict[str, Any]:
        """What `celery inspect stats` shows as `pool`: `max-concurrency`, `processes`, …"""

    def stop(self) -> None:
        """Begins a warm shutdown. Does not wait for it."""


class Commands:
    """The commands that this worker knows.

    Arguments:
        app: The Celery app.
        hostname: The worker's name.
        reports: Where its processes tell what they do.
        pool: The processes, and the way to stop them.
        task_events: Whether they send task events already.

    Attributes:
        on_heartbeat: Called for a heartbeat out of turn.
    """

    def __init__(self, app: Celery, hostname: str, reports: Reports, pool: Pool, task_events: bool) -> None:
        self.on_heartbeat: Callable[[], None] = lambda: None
        self._app = app
        self._hostname = hostname
        self._reports = reports
        self._pool = pool
        self._task_events = task_events
        self._started = time.monotonic()
        self._connection: Connection | None = None
        ours: dict[str, Callable[..., Any]] = {
            "stats": self._stats,
            "active": self._active,
            "dump_active": self._active,
            "query_task": self._query_task,
            "active_queues": self._active_queues,
            "enable_events": self._enable_events,
            "disable_events": self._disable_events,
            "heartbeat": self._heartbeat,
            "shutdown": self._shutdown,
            # What is taken ahead or waits for its time is held by the core, which names none of it.
            **dict.fromkeys(("reserved", "dump_reserved", "scheduled", "dump_schedule"), _nothing),
            **dict.fromkeys(("revoked", "dump_revoked"), _nothing),
        }
        celerys = {name: Panel.data[name] for name in _CELERYS if name in Panel.data}
        refused = {name: _refusal(name, reason) for name, reason in _REFUSED.items()}
        # Commands that the project has registered with Celery's panel are run too; they find the app in their state.
        builtins = {name for name, command in Panel.data.items() if command.__module__ == Panel.__module__}
        projects = {name: command for name, command in Panel.data.items() if name not in builtins}
        self._handlers = {**projects, **celerys, **refused, **ours}

    def listen(self, connection: Connection) -> None:
        """Answers what comes over this connection, whenever its events are drained."""
        self._connection = connection
        node = self._app.control.mailbox.Node(
            self._hostname,
            handlers=self._handlers,
            state=AttributeDict(app=self._app, hostname=self._hostname, consumer=None, tset=set),
            channel=connection.channel(),
        )

        def on_message(body: Any, message: Any) -> None:
            self._app.clock.forward()
            try:
                node.handle_message(body, message)
            except KeyError as unknown:
                logger.error("No such control command: %s", unknown)
            except connection.connection_errors:
                raise
            except Exception:
                logger.exception("A control command failed")

        node.listen(callback=on_message)

    def ask(self) -> list[Report]:
        """What all processes do; and tells them what monitors want, those too that were started meanwhile."""
        reports = self._reports.ask({"clock": self._app.clock.value, "events": self._task_events})
        for report in reports:
            self._app.clock.adjust(report["clock"])
        return reports

    def _stats(self, state: Any) -> dict[str, Any]:
        self.ask()
        return {
            "total": dict(self._reports.begun()),
            "pid": os.getpid(),
            "clock": str(self._app.clock),
            "uptime": round(time.monotonic() - self._started),
            "pool": self._pool.info(),
            "broker": self._broker(),
            "prefetch_count": "N/A",
            "rusage": _rusage(),
        }

    def _broker(self) -> dict[str, Any]:
        if self._connection is None:
            return {}
        told = dict(self._connection.info())
        # Celery leaves out the password; there are more in the other URLs, and may be in the options and for TLS.
        for secret in ("password", "transport_options", "credential_provider"):
            told.pop(secret, None)
        return {
            **told,
            "ssl": bool(told.get("ssl")),
            "alternates": [maybe_sanitize_url(url) for url in told.get("alternates") or ()],
        }

    def _active(self, state: Any, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
        return [task for report in self.ask() for task in report["running"]]

    def _query_task(self, state: Any, ids: Any, **_: Any) -> dict[str, Any]:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        return {task["id"]: ("active", task) for task in self._active(state) if task["id"] in wanted}

    def _active_queues(self, state: Any) -> list[dict[str, Any]]:
        return [queue.as_dict(recurse=True) for queue in self._app.amqp.queues.consume_from.values()]

    def _enable_events(self, state: Any) -> dict[str, str]:
        already, self._task_events = self._task_events, True
        self.ask()
        if not already:
            logger.info("Task events are wanted by a monitor")
        return {"ok": "task events already enabled" if already else "task events enabled"}

    def _disable_events(self, state: Any) -> dict[str, str]:
        before, self._task_events = self._task_events, False
        self.ask()
        if before:
            logger.info("Task events are no longer wanted by a monitor")
        return {"ok": "task events disabled" if before else "task events already disabled"}

    def _heartbeat(self, state: Any) -> None:
        self.on_heartbeat()

    def _shutdown(self, state: Any, msg: str = "Got shutdown from remote", **_: Any) -> None:
        logger.warning("%s", msg)
        self._pool.stop()


def _nothing(_state: Any, **_: Any) -> list[Any]:
    return []


def _refusal(name: str, reason: str) -> Callable[..., dict[str, str]]:
    def refuse(_state: Any, **_: Any) -> dict[str, str]:
        return {"error": f"an async-signals worker does not know {name}: {reason}"}

    return refuse


def _rusage() -> dict[str, Any] | str:
    try:
        import resource
    except ImportError:  # not on every platform
        return "N/A"
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = (name for name in dir(used) if name.startswith("ru_"))
    return {name.removeprefix("ru_"): getattr(used, name) for name in names}
