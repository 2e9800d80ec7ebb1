"""Pause signals or queues, or list what is paused.

No receiver of a paused signal begins, and no message of a paused queue, in any worker: within five seconds. What has
begun ends. Sends wait in a queue, or are refused where the signal's when_paused says so. `signals resume` ends it.
"""

from __future__ import annotations

import getpass
import socket
from argparse import ArgumentParser
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import DatabaseError

from async_signals import names, pauses, routing
from async_signals.inspection.answers import ANSWER, declare, within
from async_signals.inspection.routes import named_queues

from .output import Output
from .project import load_modules, the_app

#: AMQP's word for a queue that is there with other arguments.
PRECONDITION_FAILED = 406

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.models import Pause


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument("names", nargs="*", metavar="name", help="Signals or queues; without any, list what is paused.")
    add_kind(parser)
    parser.add_argument("--reason", default="", help="Why, for whoever asks later.")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one signal or queue a line.")


def add_kind(parser: ArgumentParser) -> None:
    """Adds the options that say what a name is."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--signal", action="store_const", const="signal", dest="kind", help="The names are signals'.")
    kind.add_argument("--queue", action="store_const", const="queue", dest="kind", help="The names are queues'.")


def run(output: Output, *, names: list[str], kind: str | None, reason: str, as_json: bool, **_: Any) -> None:
    """Pauses, or lists."""
    app = the_app()
    load_modules(app, output)
    # All of them are looked at before the first one is paused.
    found = [(kind or kind_of(app, name), name) for name in names]
    try:
        for each in found:
            is_new = pauses.pause(*each, reason=reason, by=_me())
            if not as_json:
                output.line(f"{' '.join(each)} {'is paused' if is_new else 'was paused already'}")
        rows = [row for row in pauses.pauses() if not found or (row.kind, row.name) in found]
    except (DatabaseError, ImproperlyConfigured, ValueError) as error:
        raise refusal(error) from error
    if found:
        _declare_queue_aside(app, output)
    if as_json:
        for row in rows:
            at = row.at.isoformat()
            output.json({"kind": row.kind, "name": row.name, "at": at, "by": row.by, "reason": row.reason})
    elif found:
        output.line(f"Every worker and sender knows within {pauses.INTERVAL:g} s.")
    else:
        output.table(("KIND", "NAME", "SINCE", "BY", "REASON"), map(_row, rows), "Nothing is paused")


def kind_of(app: Celery, name: str) -> str:
    """Whether a name is a signal's or a queue's."""
    kinds = [
        kind
        for kind, is_it in (("signal", names.find(name) is not None), ("queue", name in named_queues(app)))
        if is_it
    ]
    if not kinds:
        raise CommandError(
            f"there is no signal and no queue {name!r} here (see `signals list` and `signals queues`); "
            f"say --signal or --queue to name one that only other programs know"
        )
    if len(kinds) > 1:
        raise CommandError(f"{name!r} is a signal and a queue: say --signal or --queue", returncode=2)
    return kinds[0]


def _declare_queue_aside(app: Celery, output: Output) -> None:
    """Declares where paused messages wait, on RabbitMQ: the workers' user may have no right to.

    A broker that is down keeps nobody from pausing what goes there.
    """
    connection = app.connection_for_write(connect_timeout=ANSWER)
    if connection.transport.driver_type != "amqp":
        return
    name = pauses.queue_aside(app)
    try:
        within(ANSWER, partial(declare, connection, routing.durable_queue(name)))
    except Exception as error:
        if getattr(error, "reply_code", None) == PRECONDITION_FAILED:
            return  # it is there, and was declared otherwise
        output.note(f"Queue {name}, where paused messages wait, is left to the workers to declare: {error}")
    finally:
        with suppress(Exception):
            within(ANSWER, connection.release)


def refusal(error: Exception) -> CommandError:
    """The error in a user's words."""
    if isinstance(error, DatabaseError):
        return CommandError(f"the table of what is paused cannot be used; run manage.py migrate ({error})")
    return CommandError(str(error))


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "?"  # a user without a name, as in containers
    return f"{user}@{socket.gethostname()}"


def _row(row: Pause) -> tuple[Any, ...]:
    return row.kind, row.name, row.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"), row.by or None, row.reason or None
