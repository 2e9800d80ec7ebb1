"""Django's connections to databases and caches: closed after each message, or kept as Django keeps them."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import Celery
from django.conf import settings

from async_signals import compat, transactions

logger = logging.getLogger("async_signals.worker")

#: What the threads are called that run receivers, beside the main one.
RECEIVING = "receivers-"


def close_all() -> None:
    """Closes those of the calling thread, pools of them too: before processes are forked."""
    if not settings.configured:
        return
    from django.core.cache import caches
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        connection.close()
        if connection.settings_dict.get("OPTIONS", {}).get("pool") and hasattr(connection, "close_pool"):
            connection.close_pool()
    caches.close_all()


#: What the parent had open as this process was forked.
_inherited: list[Any] = []


def forget_inherited() -> None:
    """First of all in a process that was forked: leaves alone what its parent has opened since, in a listener, say."""
    if not settings.configured:
        return
    from django.db import connections

    # All of them: a pool is not one thread's.
    for connection in connections.all():
        _inherited.extend(compat.forget_connection(connection))


class Connections:
    """Those of the threads that run receivers.

    Django's ``CONN_MAX_AGE`` says for how long a connection is kept, as between two requests; Celery's own
    ``CELERY_DB_REUSE_MAX``, where it is set, for how many messages. One that was kept is looked at before it is used
    again, whatever ``CONN_HEALTH_CHECKS`` says: a request that meets a lost one is sent again by whoever sees the
    error, and a message has nobody who does.

    Arguments:
        app: The Celery app.
    """

    def __init__(self, app: Celery) -> None:
        self._reuse = int(app.conf.get("CELERY_DB_REUSE_MAX", None) or 0)
        if settings.configured:
            from django.db import connections

            self._checked_before = {
                alias: database.get("CONN_HEALTH_CHECKS", False) for alias, database in connections.settings.items()
            }
            for database in connections.settings.values():
                database["CONN_HEALTH_CHECKS"] = True
        self._mine = _Mine()
        self._left = _LeftByThreads()

    def put_back(self) -> None:
        """In a process that goes on as something else: has Django look at connections as often as it did before."""
        if settings.configured:
            from django.db import connections

            for alias, checked in self._checked_before.items():
                connections.settings[alias]["CONN_HEALTH_CHECKS"] = checked

    def close(self) -> None:
        """After a message: closes what the calling thread has open, if it has served long enough. Never raises."""
        mine = self._mine
        try:
            # Looked at first: most signals ask no database, and closing what is closed costs more than they do.
            for connection in mine.databases:
                if connection.connection is not None:
                    self._used(mine)
                    break
            if self._left.any:
                self._left.close()
            if mine.caches is not None:
                mine.caches.close_all()
        except Exception:
            # The receivers have done their work.
            logger.exception("A connection could not be closed after a message")

    def _used(self, mine: _Mine) -> None:
        transactions.leave_blocks(mine.databases)
        mine.used += 1
        is_over = mine.used >= self._reuse > 0
        if is_over:
            mine.used = 0
        for connection in mine.databases:
            if is_over:
                _close(connection)
            elif self._reuse:
                _keep(connection)
            else:
                connection.close_if_unusable_or_obsolete()


class _Mine(threading.local):
    """One thread's: Django keeps a connection's object for as long as the thread lives, open or not."""

    def __init__(self) -> None:
        self.used = 0
        self.databases: tuple[Any, ...] = ()
        self.caches: Any = None
        if settings.configured:
            from django.core.cache import caches
            from django.db import connections

            self.databases = tuple(connections.all())
            if any(map(_has_close, settings.CACHES.values())):
                self.caches = caches


class _LeftByThreads:
    """Connections of threads that receivers start, and that end without closing them.

    Nobody can use one any more; it stays open until the garbage is collected, and a pool never gets it back.
    """

    def __init__(self) -> None:
        #: By the connection's id: it, and the thread that made it, which alone uses it.
        self.any: dict[int, tuple[Any, threading.Thread]] = {}
        if settings.configured:
            from django.db.backends.signals import connection_created

            connection_created.connect(self._note)

    def _note(self, connection: Any, **_: Any) -> None:
        thread = threading.current_thread()
        if isinstance(thread, compat.ForeignThread):
            return  # not Python's: nobody can tell when it ends, and its connection goes with it
        if thread is not threading.main_thread() and not thread.name.startswith(RECEIVING):
            self.any[id(connection)] = (connection, thread)

    def close(self) -> None:
        """Closes those whose threads have ended."""
        for key, (connection, thread) in list(self.any.items()):
            if thread.is_alive() or self.any.pop(key, None) is None:
                continue
            connection.inc_thread_sharing()  # Django has each used by its own thread alone
            transactions.leave_blocks([connection])
            _close(connection)


def _has_close(cache: dict[str, Any]) -> bool:
    """Most caches have nothing to close, and asking Django which are in use costs more than many a receiver."""
    from django.core.cache.backends.base import BaseCache
    from django.utils.module_loading import import_string

    try:
        backend = import_string(cache["BACKEND"])
    except (ImportError, KeyError):
        return False  # one that nobody can use
    return getattr(backend, "close", None) is not BaseCache.close


def _keep(connection: Any) -> None:
    """What Django does between two requests, but for the connection's age."""
    age, connection.close_at = connection.close_at, None
    try:
        connection.close_if_unusable_or_obsolete()
    finally:
        connection.close_at = age


def _close(connection: Any) -> None:
    from django.db.utils import DatabaseError, InterfaceError

    try:
        connection.close()
    except InterfaceError:
        pass  # the server has closed it
    except DatabaseError as error:
        if "closed" not in str(error) and "not connected" not in str(error):
            raise
