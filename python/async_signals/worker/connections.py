"""Django's connections to databases and caches: closed after each message, as Celery's Django fixup closes them."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import Celery
from django.conf import settings

logger = logging.getLogger("async_signals.worker")


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


class Connections:
    """Those of the threads that run receivers.

    Arguments:
        app: The Celery app, whose ``CELERY_DB_REUSE_MAX`` says for how many messages a connection is kept.
    """

    def __init__(self, app: Celery) -> None:
        self._reuse = int(app.conf.get("CELERY_DB_REUSE_MAX", None) or 1)
        self._mine = _Mine()

    def close(self) -> None:
        """After a message: closes what the calling thread has open, if it has served long enough. Never raises."""
        mine = self._mine
        try:
            # Looked at first: most signals ask no database, and closing what is closed costs more than they do.
            for connection in mine.databases:
                if connection.connection is not None:
                    self._used(mine)
                    break
            if mine.caches is not None:
                mine.caches.close_all()
        except Exception:
            # The receivers have done their work.
            logger.exception("A connection could not be closed after a message")

    def _used(self, mine: _Mine) -> None:
        mine.used += 1
        if mine.used >= self._reuse:
            mine.used = 0
            for connection in mine.databases:
                _close(connection)


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


def _has_close(cache: dict[str, Any]) -> bool:
    """Most caches have nothing to close, and asking Django which are in use costs more than many a receiver."""
    from django.core.cache.backends.base import BaseCache
    from django.utils.module_loading import import_string

    try:
        backend = import_string(cache["BACKEND"])
    except (ImportError, KeyError):
        return False  # one that nobody can use
    return getattr(backend, "close", None) is not BaseCache.close


def _close(connection: Any) -> None:
    from django.db.utils import DatabaseError, InterfaceError

    try:
        connection.close()
    except InterfaceError:
        pass  # the server has closed it
    except DatabaseError as error:
        if "closed" not in str(error) and "not connected" not in str(error):
            raise
