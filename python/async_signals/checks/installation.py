"""Whether what is installed, and what is in the database, is what signals need."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata
from types import FrameType
from typing import Any

from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from async_signals import names, routing

from .messages import listed, never_raises


@never_raises
def check_installation(**_: Any) -> Iterable[CheckMessage]:
    """Whether another distribution has put its files where ours are."""
    try:
        metadata.distribution("async-signals")
    except metadata.PackageNotFoundError:
        return
    yield CheckWarning(
        "The distribution async-signals is installed beside django-async-signals, and both are imported as "
        "async_signals: whose files are there depends on which came last.",
        hint="Uninstall both, and install django-async-signals again.",
        id="async_signals.W005",
    )


@never_raises
def check_deployment(**_: Any) -> Iterable[CheckMessage]:
    """Whether receivers run in a worker, which a project need not want while it is developed."""
    try:
        app = routing.find_app()
    except Exception:
        return  # check_settings says so
    if app is None:
        why, hint = "Celery is not configured", "Set broker_url in Celery's settings, or ASYNC_SIGNALS['app']."
    elif getattr(getattr(app, "conf", None), "task_always_eager", False):
        why, hint = "task_always_eager is on", "Turn it off: it is meant for tests."
    else:
        return
    yield CheckWarning(
        f"{why}, so the receivers of asynchronous signals run where they are sent.",
        hint=hint,
        id="async_signals.W001",
    )


@never_raises
def check_tables(databases: Iterable[str] | None = None, **_: Any) -> Iterable[CheckMessage]:
    """Whether there is the table that receivers with ``once=True`` need, in the databases that may be asked."""
    if not databases or _is_migrating():
        return
    of_signals = [signal.name for signal in names.known() if signal._registry.any_once]
    if not of_signals:
        return
    from django.db import connections, router

    from async_signals.models import Effect

    alias = router.db_for_write(Effect)
    if alias not in databases:
        return
    table = Effect._meta.db_table
    if table not in connections[alias].introspection.table_names():
        yield CheckWarning(
            f"Receivers of {listed(of_signals)} are connected with once=True, and database {alias!r} has no table "
            f"{table!r}: they fail for each message.",
            hint=f"Run manage.py migrate --database {alias}.",
            id="async_signals.W004",
        )


def _is_migrating() -> bool:
    """Whether this is run by ``migrate``, which checks before it creates what is missing."""
    migrate = sys.modules.get("django.core.management.commands.migrate")
    frame: FrameType | None = sys._getframe()
    while frame is not None and migrate is not None:
        if isinstance(frame.f_locals.get("self"), migrate.Command):
            return True
        frame = frame.f_back
    return False
