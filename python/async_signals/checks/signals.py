"""Whether each signal has a name of its own, by which a worker finds it, and a transaction that it may wait for."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from async_signals import names, routing, settings
from async_signals.errors import DuplicateSignalName, NoWireName

from .messages import listed, never_raises


@never_raises
def check_signals(**_: Any) -> Iterable[CheckMessage]:
    """Whether each send of a signal would be refused."""
    try:
        app = routing.find_app()
        on_commit = settings.get().on_commit
    except Exception:
        return  # check_settings says so
    if app is None:
        return  # receivers run where signals are sent, by whatever name and in whatever transaction
    yield from _check_names()
    yield from _check_autocommit(on_commit)


def _check_names() -> Iterable[CheckMessage]:
    if not names.unnamed():
        return
    gc.collect()  # one that is garbage is nobody's
    for signal in names.unnamed():
        try:
            names.name_of(signal)
        except NoWireName as error:
            yield CheckWarning(
                f"A signal cannot be sent: {error}.",
                hint="Each send raises NoWireName.",
                id="async_signals.W007",
            )
        except DuplicateSignalName as error:
            yield CheckWarning(
                f"A signal cannot be sent: {error}.",
                hint="Each send of the one that was made last raises DuplicateSignalName.",
                id="async_signals.W008",
            )


def _check_autocommit(on_commit: bool) -> Iterable[CheckMessage]:
    databases = [alias for alias, database in django_settings.DATABASES.items() if not database.get("AUTOCOMMIT", True)]
    waiting = [signal.name for signal in names.known() if (on_commit if signal.on_commit is None else signal.on_commit)]
    if databases and waiting:
        yield CheckWarning(
            f"AUTOCOMMIT is off for database {', '.join(map(repr, databases))}, so no commit is announced that "
            f"{listed(waiting)} could wait for: each send is refused once the database was asked anything.",
            hint="Set ASYNC_SIGNALS['on_commit'] to False, and send signals after the commit.",
            id="async_signals.W009",
        )
