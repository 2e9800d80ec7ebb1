"""Which signals and queues are paused: by ``manage.py signals pause``, and by ``ASYNC_SIGNALS["enabled"]``.

They stand in a table, which every worker, and every process that sends a signal with ``when_paused="refuse"``, reads
every few seconds: in a thread and over a connection of its own, so that nobody waits for it, no transaction sees it,
and a database that is gone holds nothing up.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from . import settings
from .errors import SignalNotSent

if TYPE_CHECKING:
    from celery import Celery

    from .dispatcher import AsyncSignal
    from .models import Pause
    from .routing import SendPlan

logger = logging.getLogger("async_signals")

#: After how many seconds at most every process knows what was paused or resumed.
INTERVAL = 5.0
#: How long the first look may keep a process waiting, in seconds.
_FIRST_LOOK = 2.0
#: After how many seconds in which nobody has asked a process no longer looks.
_IDLE = 60.0
#: What a column of ours holds, in characters.
COLUMN = 255


@dataclasses.dataclass(frozen=True)
class Paused:
    """What is paused.

    Attributes:
        signals: The names of signals.
        queues: The names of queues.
        everything: Whether every signal is, since ``ASYNC_SIGNALS["enabled"]`` is False.
    """

    signals: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    everything: bool = False

    def __str__(self) -> str:
        told = [f"signal {name}" for name in sorted(self.signals)] + [f"queue {name}" for name in sorted(self.queues)]
        return "every signal" if self.everything else ", ".join(told) or "nothing"

    def __bool__(self) -> bool:
        return bool(self.everything or self.signals or self.queues)

    def covers(self, names: Iterable[str], queue: str | None) -> bool:
        """Whether a message of the signal with these names, in this queue, is not to run."""
        return self.everything or not self.signals.isdisjoint(names) or queue in self.queues


def names_of(signal: AsyncSignal | None, name: str) -> tuple[str, ...]:
    """The names by which a signal may be paused: renaming it ends no pause, and old and new code see the same one.

    Arguments:
        signal: None: there is none of that name here.
        name: What a message calls it.
    """
    return (name,) if signal is None else (signal.name, *signal.aliases, name)


def queue_aside(app: Celery) -> str:
    """The queue where messages wait that workers have moved aside, since their signal or their queue is paused."""
    return f"{app.conf.task_default_queue}.paused"


def look() -> Paused:
    """Asks the database: the one that is written to, since a replica may still know what was.

    Raises:
        DatabaseError, ImproperlyConfigured: It does not answer, or has no table of ours.
    """
    from .models import Pause

    rows = list(_rows(Pause).values_list("kind", "name"))
    return Paused(
        frozenset(name for kind, name in rows if kind == Pause.Kind.SIGNAL),
        frozenset(name for kind, name in rows if kind == Pause.Kind.QUEUE),
    )


def _close_connections() -> None:
    """Those of the calling thread: none is held between two looks."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        connection.close()


class Watch:
    """What is paused, as it was a few seconds ago at most.

    Arguments:
        on_look: Called by its thread after each look that has found an answer.
        always: Whether it looks on when nobody asks any more.
        close: Closes the connections of the calling thread, after each look.
    """

    def __init__(
        self,
        on_look: Callable[[Paused], None] | None = None,
        always: bool = False,
        close: Callable[[], None] = _close_connections,
    ) -> None:
        self._on_look = on_look
        self._close = close
        self._always = always
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answered = threading.Event()
        self._closing = threading.Event()
        #: Until when whoever asks waits for the first answer.
        self._patient_until = 0.0
        self._asked_at = 0.0
        self._last = Paused()
        self._is_failing = False

    def current(self) -> Paused:
        """What is paused. Waits for the first answer, two seconds at most; nothing is paused until there is one."""
        if self.start():
            self._answered.wait(self._patient_until - time.monotonic())
        return self._last

    def start(self) -> bool:
        """Looks from now on, if it does not already; returns whether there is an answer to wait for."""
        self._asked_at = now = time.monotonic()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._answered.clear()
                    self._patient_until = now + _FIRST_LOOK
                    thread = threading.Thread(target=self._run, name="async-signals-pauses", daemon=True)
                    # Nothing of whoever happens to ask first: tracers take a thread's work for part of its starter's.
                    contextvars.Context().run(thread.start)
                    self._thread = thread
        return now < self._patient_until and not self._answered.is_set()

    def close(self) -> None:
        """Looks no more."""
        self._closing.set()

    def _run(self) -> None:
        while True:
            self._look()
            if self._closing.wait(INTERVAL):
                return
            with self._lock:
                if not self._always and time.monotonic() - self._asked_at > _IDLE:
                    self._thread = None
                    return

    def _look(self) -> None:
        try:
            try:
                found = look()
            except Exception as error:
                self._failed(error)
                return
            finally:
                self._close()
            self._is_failing = False
            if found != self._last:
                logger.warning("Paused from now on: %s", found)
            self._last = found
            if self._on_look is not None:
                self._on_look(found)
        except Exception:
            logger.exception("What is paused could not be told")  # by a database's driver, or a log's handler
        finally:
            self._answered.set()

    def _failed(self, error: Exception) -> None:
        if self._is_failing:
            return
        self._is_failing = True
        # A project that has the app for something else has no table, and pauses nothing.
        logger.log(
            logging.DEBUG if _is_missing() else logging.WARNING,
            "What is paused cannot be read, and stays as it was: %s: %s",
            type(error).__name__,
            error,
        )


def _is_missing() -> bool:
    """Whether there is no table that could say what is paused."""
    from django.db import connections, router

    from .models import Pause

    try:
        alias = router.db_for_write(Pause)
        return Pause._meta.db_table not in connections[alias].introspection.table_names()
    except ImproperlyConfigured:
        return True  # no database
    except Exception:
        return False


_NOTHING, _EVERYTHING = Paused(), Paused(everything=True)
_watch = Watch()
#: What this process was told, where another one looks for it.
_told: Paused | None = None


def _forget_threads() -> None:
    """In a process that was forked: no thread has come along."""
    global _watch
    _watch = Watch()


os.register_at_fork(after_in_child=_forget_threads)


def is_installed() -> bool:
    """Whether there is a table to look at, as far as that can be known yet; without Django's settings there is none."""
    return apps.apps_ready and apps.is_installed("async_signals")


def current() -> Paused:
    """What is paused, as this process knows it."""
    if not settings.get().enabled:
        return _EVERYTHING
    if _told is not None:
        return _told
    return _watch.current() if is_installed() else _NOTHING


def tell(paused: Paused | None) -> None:
    """Says what is paused, in a process for which another one looks; None: it looks itself again."""
    global _told
    _told = paused


async def awatch() -> None:
    """Waits, without blocking the event loop, until ``current`` need not wait."""
    if _told is None and settings.get().enabled and is_installed() and _watch.start():
        import asyncio

        await asyncio.to_thread(_watch.current)


def refuse(signal: AsyncSignal, plan: SendPlan, options: dict[str, Any]) -> None:
    """Refuses a send of a signal that is paused.

    Raises:
        SignalNotSent: It is.
    """
    paused = current()
    if not paused:
        return
    queue = None
    if paused.queues:
        given = options.get("queue")
        queue = plan.queue_of(signal) if given is None else str(getattr(given, "name", given))
    known_as = names_of(signal, plan.name)
    if not paused.covers(known_as, queue):
        return
    if paused.everything:
        reason = "ASYNC_SIGNALS['enabled'] is False"
    elif not paused.signals.isdisjoint(known_as):
        reason = f"resume it with: manage.py signals resume {plan.name}"
    else:
        reason = f"its queue is; resume it with: manage.py signals resume --queue {queue}"
    raise SignalNotSent(f"{plan.name} is paused, and its when_paused is 'refuse' ({reason})", "paused")


def pauses() -> list[Pause]:
    """The rows of the table, the oldest first.

    Raises:
        ImproperlyConfigured: There is no table.
    """
    _check_installed()
    from .models import Pause

    return list(_rows(Pause).order_by("at", "pk"))


def pause(kind: str, name: str, reason: str = "", by: str = "") -> bool:
    """Pauses a signal or a queue; False: it was paused already, and stays as it was.

    Arguments:
        kind: ``"signal"`` or ``"queue"``.
        name: Its name.
        reason: Why, for people.
        by: Who, for people.

    Raises:
        ImproperlyConfigured: There is no table.
        ValueError: The name is too long.
    """
    _check_installed()
    from .models import Pause

    if len(name) > COLUMN:
        raise ValueError(f"names have {COLUMN} characters at most")
    defaults = {"reason": reason[:COLUMN], "by": by[:COLUMN]}
    _, is_new = _rows(Pause).get_or_create(kind=Pause.Kind(kind), name=name, defaults=defaults)
    return bool(is_new)


def resume(kind: str, name: str) -> bool:
    """Ends a pause; False: there was none.

    Raises:
        ImproperlyConfigured: There is no table.
    """
    _check_installed()
    from .models import Pause

    return bool(_rows(Pause).filter(kind=Pause.Kind(kind), name=name).delete()[0])


def _rows(model: type[Pause]) -> Any:
    from django.db import router

    return model._base_manager.using(router.db_for_write(model))


def _check_installed() -> None:
    if not is_installed():
        raise ImproperlyConfigured(
            "what is paused stands in a table: add 'async_signals' to INSTALLED_APPS, and run manage.py migrate"
        )
