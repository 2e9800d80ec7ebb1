"""``once=True``: one effect for each message and receiver, however often the message is delivered."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from . import settings

if TYPE_CHECKING:
    from .models import Effect

logger = logging.getLogger("async_signals")

#: How often a process looks for rows that are too old, in seconds.
_PURGE_EVERY = 600.0
#: How many rows one look deletes at most, so that no receiver waits for it.
_PURGE_AT_MOST = 1000
#: What a column of ours holds, in characters.
_COLUMN = 255


class Once:
    """A receiver for one message: called, it runs unless it has run for that message before.

    That it ran is written in the same transaction as what it writes itself, so
    that both are there or none is. A second run at the same time waits for the
    first one's transaction.

    Arguments:
        asynchronous: Whether it is a coroutine function.
        message: The task's id.
        name: The receiver's name in messages.
        ordinal: Which of the receivers of that name it is, from 1.
    """

    __slots__ = ("_asynchronous", "_message", "_name", "_receiver")

    def __init__(self, receiver: Callable[..., Any], asynchronous: bool, message: str, name: str, ordinal: int) -> None:
        self._receiver = receiver
        self._asynchronous = asynchronous
        self._message = _fitting(message)
        self._name = _fitting(name if ordinal == 1 else f"{name}#{ordinal}")

    def __call__(self, **arguments: Any) -> Any:
        """What the receiver returns; None if it ran before."""
        from django.db import IntegrityError, transaction

        check_installed()
        from .models import Effect

        using = _database(Effect)
        with transaction.atomic(using=using):
            effects = Effect._base_manager.using(using)
            try:
                # In a savepoint: on PostgreSQL nothing more could be asked after an error without one.
                with transaction.atomic(using=using):
                    effects.create(message=self._message, receiver=self._name)
            except IntegrityError:
                if not effects.filter(message=self._message, receiver=self._name).exists():
                    raise
                logger.debug("Receiver %s has run for message %s before", self._name, self._message)
                return None
            # A coroutine asks the database in this very thread, and so in this transaction.
            response = (async_to_sync(self._receiver) if self._asynchronous else self._receiver)(**arguments)
        _purge_now_and_then()
        return response


def check_installed() -> None:
    """Looks whether there is a table to write to, as far as that can be known yet.

    Raises:
        ImproperlyConfigured: There is none.
    """
    if apps.apps_ready and not apps.is_installed("async_signals"):
        raise ImproperlyConfigured(
            "once=True keeps what ran in a table of its own: add 'async_signals' to INSTALLED_APPS, and run "
            "manage.py migrate"
        )


def purge(older_than: timedelta | None = None, at_most: int | None = None) -> int:
    """Deletes what is kept of messages that will not come again.

    Arguments:
        older_than: ``once_max_age`` if None.
        at_most: How many rows; None: all.

    Returns:
        How many rows it has deleted.
    """
    from django.utils import timezone

    check_installed()
    from .models import Effect

    using = _database(Effect)
    age = timedelta(seconds=settings.get().once_max_age) if older_than is None else older_than
    old = Effect._base_manager.using(using).filter(at__lt=timezone.now() - age).order_by("at")
    deleted = 0
    while at_most is None or deleted < at_most:
        # Key by key: not every database deletes with a limit.
        most = _PURGE_AT_MOST if at_most is None else min(_PURGE_AT_MOST, at_most - deleted)
        keys = list(old.values_list("pk", flat=True)[:most])
        if not keys:
            break
        deleted += Effect._base_manager.using(using).filter(pk__in=keys).delete()[0]
    return deleted


_purge_lock = threading.Lock()
_purged_at = 0.0


def _purge_now_and_then() -> None:
    global _purged_at
    with _purge_lock:
        now = time.monotonic()
        if _purged_at and now - _purged_at < _PURGE_EVERY:
            return
        _purged_at = now
    try:
        purge(at_most=_PURGE_AT_MOST)
    except Exception:
        # The receiver has done its work, and the next look may do better.
        logger.exception("What is kept of old messages could not be deleted")


def _database(model: type[Effect]) -> str:
    from django.db import router

    return router.db_for_write(model)


def _fitting(text: str) -> str:
    """The text, or as much of it as the column holds, and still one of its own."""
    if len(text) <= _COLUMN:
        return text
    return f"{text[: _COLUMN - 33]}#{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
