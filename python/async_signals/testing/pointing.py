"""A Celery app, pointed at another broker for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from async_signals import compat, names, publishing, routing, settings

if TYPE_CHECKING:
    from celery import Celery

#: What Celery's settings are while a live worker is there, beside the broker's address.
_SETTINGS: dict[str, Any] = {
    "task_always_eager": False,
    "broker_transport_options": {},
    "broker_use_ssl": False,
    "broker_login_method": None,
    "broker_failover_strategy": None,
    **dict.fromkeys(("broker_transport", "broker_user", "broker_password", "broker_vhost", "broker_port")),
}
#: What goes before Celery's settings.
_ENVIRONMENT = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def find_app() -> Celery:
    """The app that signals are sent with; where none has a broker, the one that is current.

    Raises:
        RuntimeError: There is none, or Celery cannot use a SQLite file.
    """
    app: Celery | None = (routing.find_app() or compat.current_app()) if compat.HAS_CELERY else None
    if app is None:
        raise RuntimeError("there is no Celery app in this process; import your project's, as a worker would")
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            "Celery needs SQLAlchemy for a broker in a SQLite file: pip install 'django-async-signals[sqlite]'"
        ) from error
    return app


@contextmanager
def pointed_at(app: Celery, url: str) -> Iterator[None]:
    """Has an app use another broker: its settings, its connections, and our publisher. All of it is put back."""
    from celery.app import trace

    from async_signals.publishing import embedded

    with ExitStack() as stack:
        app.conf.finalize()  # which makes the dict anew that changes go into
        changes = compat.changed_settings(app)
        stack.callback(changes.update, dict(changes))
        stack.callback(changes.clear)
        environment = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
        stack.callback(os.environ.update, environment)
        stack.callback(compat.set_pools_aside(app))
        stack.callback(compat.set_current_apps_aside())
        stack.callback(publishing.set_publisher_aside(app))
        stack.callback(trace.reset_worker_optimizations, app)
        app.conf.update({**_SETTINGS, **dict.fromkeys(("broker_url", "broker_read_url", "broker_write_url"), url)})
        embedded.share(app, [url])
        try:
            yield
        finally:
            publishing.flush(settings.get().flush_timeout)
            # They hold on to the publisher of a broker that is about to be gone.
            for signal in names.known():
                signal._plans.clear()
