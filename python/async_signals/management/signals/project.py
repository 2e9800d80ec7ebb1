"""The project that a subcommand asks about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from async_signals import routing
from async_signals.errors import BrokerMisconfigured, SignalNotSent
from async_signals.inspection import QueueLook

from .output import Output

if TYPE_CHECKING:
    from celery import Celery

#: Celery's own variable: with it a worker starts without Django's checks.
_SKIP_CHECKS = "CELERY_SKIP_CHECKS"


def find_app() -> Celery | None:
    """The Celery app that carries signals; None: there is none, and receivers run where signals are sent."""
    try:
        return routing.find_app()
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


def the_app() -> Celery:
    """The Celery app that carries signals, for what makes no sense without one."""
    app = find_app()
    if app is None:
        raise CommandError(
            "Celery is not configured, so signals go through no broker: set broker_url in Celery's settings, or "
            "ASYNC_SIGNALS['app'] to the app that has one"
        )
    return app


def load_modules(app: Celery | None, output: Output) -> None:
    """Imports what a worker imports as it starts: the modules of tasks, which may connect receivers too."""
    if app is None:
        return
    try:
        with _without_checks():
            app.loader.import_default_modules()
    except Exception as error:
        output.note(f"A worker could not start: its modules do not load ({type(error).__name__}: {error})")


@contextmanager
def _without_checks() -> Iterator[None]:
    """Celery runs Django's checks as it imports modules: a third of the time that a listing takes."""
    before = os.environ.get(_SKIP_CHECKS)
    os.environ[_SKIP_CHECKS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SKIP_CHECKS]
        else:
            os.environ[_SKIP_CHECKS] = before


def look_at(app: Celery) -> QueueLook:
    """A connection to the app's broker, to look at its queues."""
    try:
        return QueueLook(app)
    except (BrokerMisconfigured, SignalNotSent, ImproperlyConfigured) as error:
        raise CommandError(str(error)) from error
