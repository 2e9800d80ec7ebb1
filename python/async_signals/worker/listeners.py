"""Whether somebody wants a say in how tasks run: a listener to Celery's task signals, or a patch of its tracer."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from celery import Celery, signals
from celery.app import task as celery_task
from celery.app import trace

#: What Celery sends while a worker runs one task.
_SENT = (
    signals.task_received,
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_revoked,
    signals.task_internal_error,
)
#: What a task class may override, and Celery's tracer calls.
_HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
#: Celery's own modules that may stand behind a task's `__call__`; the second protects its stack in workers.
_OWN_CALLS = (vars(celery_task), vars(trace))
#: Celery's Django fixup listens, to close connections around each task. The short way closes them itself.
_OWN_LISTENERS = "celery.fixups."


class Listeners:
    """Tells whether one task has to run as Celery runs it, for others to see.

    Arguments:
        app: The Celery app.
        name: The task's name.
    """

    def __init__(self, app: Celery, name: str) -> None:
        self._app = app
        self._name = name
        self._receivers = [signal.receivers for signal in _SENT]
        self._seen: object = None
        self._answer = False

    @property
    def present(self) -> bool:
        """Cheap enough to be asked for every message: looks closer only when a listener or a patch has come or gone."""
        now = [trace.build_tracer, *map(len, self._receivers)]
        if now != self._seen:
            self._answer = self._look()
            self._seen = now
        return self._answer

    def _look(self) -> bool:
        task = self._app.tasks[self._name]
        return (
            not _is_defined_in(trace.build_tracer, (vars(trace),))
            or not _is_defined_in(type(task).__call__, _OWN_CALLS)
            or "run" in vars(task)
            or any(trace.task_has_custom(task, hook) for hook in _HOOKS)
            or any(not _is_celerys_own(receiver) for signal in _SENT for receiver in signal._live_receivers(task))
        )


def _is_defined_in(function: Any, modules: tuple[dict[str, Any], ...]) -> bool:
    # Not by its name and module, which decorators copy.
    return type(function) is FunctionType and any(function.__globals__ is names for names in modules)


def _is_celerys_own(receiver: Any) -> bool:
    function = getattr(receiver, "__func__", receiver)
    return str(getattr(function, "__module__", "")).startswith(_OWN_LISTENERS)
