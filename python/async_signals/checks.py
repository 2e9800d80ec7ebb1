"""System checks: what of the settings would lose signals, or keep them from being sent. See docs/checks.md.

A check never raises: Django's commands, and Celery's workers as they start, would end with it. It says nothing unless
it is sure, and connects to nothing unless it was asked to.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from types import FrameType
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from . import names, routing, settings
from .errors import BrokerMisconfigured
from .inspection.routes import queue_of

if TYPE_CHECKING:
    from celery import Celery

    from .dispatcher import AsyncSignal

TAG = "async_signals"
#: How many signals a message lists.
_MOST_LISTED = 5

Check = Callable[..., Iterable[CheckMessage]]


def register_checks() -> None:
    """Makes ``manage.py check`` run them."""
    register(check_settings, TAG)
    register(check_installation, TAG)
    register(check_deployment, TAG, deploy=True)
    # Under that tag alone: Django 6.1 hands all databases to checks that were asked for by a tag of theirs.
    register(check_tables, Tags.database)


def _never_raises(check: Check) -> Callable[..., list[CheckMessage]]:
    @functools.wraps(check)
    def guarded(**asked: Any) -> list[CheckMessage]:
        messages: list[CheckMessage] = []
        try:
            messages.extend(check(**asked))
        except (Exception, SystemExit) as error:
            # A warning: whatever is wrong with a check, it must not keep anybody from migrating a database.
            text = f"{check.__name__} of async_signals failed: {type(error).__name__}: {error}"
            messages.append(CheckWarning(text, id="async_signals.W006"))
        return messages

    return guarded


@_never_raises
def check_settings(**_: Any) -> Iterable[CheckMessage]:
    """Whether signals can be sent, and whether a worker that reads what Celery's settings name would take them."""
    app: Any = None
    try:
        yield from _check_on_failure(settings.get().on_failure)
        app = routing.find_app()
    except Exception as error:
        yield Error(str(error), id="async_signals.E001")
    if app is None:
        return
    from celery import Celery

    if not isinstance(app, Celery):
        yield Error(f"ASYNC_SIGNALS['app'] is {app!r}, which is no Celery app.", id="async_signals.E001")
    elif not app.conf.task_always_eager:
        yield from _check_broker(app)
        yield from _check_content(app)
        yield from _check_queues(app)


@_never_raises
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


@_never_raises
def check_deployment(**_: Any) -> Iterable[CheckMessage]:
    """Whether Celery is configured, which a project need not want while it is developed."""
    try:
        app = routing.find_app()
    except Exception:
        return  # check_settings says so
    if app is None:
        yield CheckWarning(
            "Celery is not configured, so the receivers of asynchronous signals run where they are sent.",
            hint="Set broker_url in Celery's settings, or ASYNC_SIGNALS['app'].",
            id="async_signals.W001",
        )


@_never_raises
def check_tables(databases: Iterable[str] | None = None, **_: Any) -> Iterable[CheckMessage]:
    """Whether there is the table that receivers with ``once=True`` need, in the databases that may be asked."""
    if not databases or _is_migrating():
        return
    listed = [signal.name for signal in names.known() if signal._registry.any_once]
    if not listed:
        return
    from django.db import connections, router

    from .models import Effect

    alias = router.db_for_write(Effect)
    if alias not in databases:
        return
    table = Effect._meta.db_table
    if table not in connections[alias].introspection.table_names():
        yield CheckWarning(
            f"Receivers of {_some(listed)} are connected with once=True, and database {alias!r} has no table "
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


def _check_on_failure(callback: Any) -> Iterable[CheckMessage]:
    try:
        found = import_string(callback) if isinstance(callback, str) else callback
        reason = None if found is None or callable(found) else f"{found!r} is not callable"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        yield Error(
            f"ASYNC_SIGNALS['on_failure'] is {callback!r}, which cannot be called: {reason}.",
            hint="Nothing but the log would tell of signals that are lost after send has returned.",
            id="async_signals.E006",
        )


def _check_broker(app: Celery) -> Iterable[CheckMessage]:
    from .publishing.broker import broker_options

    try:
        broker_options(app)
    except routing.NotNative as reason:
        yield CheckWarning(
            f"Signals are published by Celery's own producer, not by the native one: {reason}. Then "
            f"durability='confirmed' does not wait for the broker's confirmation, and a message for which there is no "
            f"queue is not noticed.",
            hint="The native one speaks amqp, amqps, redis, rediss and sqla+sqlite, by kombu's own transports.",
            id="async_signals.W003",
        )
    except BrokerMisconfigured as error:
        yield Error(str(error), id="async_signals.E002")
    except Exception as error:
        yield Error(str(error), id="async_signals.E003")


def _check_content(app: Celery) -> Iterable[CheckMessage]:
    from kombu.serialization import prepare_accept_content

    accepted = app.conf.accept_content
    try:
        lacks_json = "application/json" not in prepare_accept_content(accepted or ())
    except Exception as error:
        yield Error(f"Celery cannot read accept_content: {error}", id="async_signals.E004")
        return
    if lacks_json:
        yield Error(
            f"Signals are sent as JSON, and accept_content is {accepted!r}: a worker throws each of them away.",
            hint="Add 'json' to accept_content.",
            id="async_signals.E005",
        )


def _check_queues(app: Celery) -> Iterable[CheckMessage]:
    from celery.utils.functional import maybe_evaluate

    conf = app.conf
    try:
        # Copies: a router adds what is missing to the queues that it knows, and a worker would read that too.
        queues = app.amqp.Queues(conf.task_queues, create_missing=True)
        router = app.amqp.Router(queues)
        for route in router.routes:
            maybe_evaluate(route)
    except Exception as error:
        yield Error(
            f"Celery cannot read task_queues or task_routes: {type(error).__name__}: {error}", id="async_signals.E004"
        )
        return
    if not conf.task_queues and conf.task_create_missing_queues:
        return  # which queues there are, workers are told by -Q
    declared = set(queues) | set(queues.aliases)
    unread: dict[str, list[str]] = {}
    for signal in filter(_is_sent, names.known()):
        queue = queue_of(signal, router)
        if queue is not None and queue not in declared:
            unread.setdefault(queue, []).append(signal.name)
    for queue, signals in sorted(unread.items()):
        if conf.task_create_missing_queues:
            what = "a worker reads it only if it is told to"
            hint = f"Add it to task_queues, or start a worker with -Q {queue}."
        else:
            what = "and task_create_missing_queues is off: the signal cannot be sent"
            hint = "Add it to task_queues."
        yield CheckWarning(
            f"Queue {queue!r} of {_some(signals)} is not in Celery's settings; {what}.",
            hint=hint,
            id="async_signals.W002",
        )


def _is_sent(signal: AsyncSignal) -> bool:
    """Whether it may be: our own are sent as long as something listens to them."""
    return bool(signal.receivers) or not signal.name.startswith(f"{__package__}.")


def _some(signals: list[str]) -> str:
    """Signals in words."""
    listed = ", ".join(signals[:_MOST_LISTED])
    more = len(signals) - _MOST_LISTED
    return f"signal {listed}" + (f" and {more} more" if more > 0 else "")
