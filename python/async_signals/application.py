"""Which Celery app carries the signals, if any."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from . import settings

if TYPE_CHECKING:
    from celery import Celery

try:
    # Celery's public current_app makes a default app when it is touched, which
    # would then look configured to others; its state only tells what there is.
    from celery import _state
except ImportError:
    _state = None

TASK = "async_signals.propagate"


def find() -> Celery | None:
    """The app that has a broker of its own: the one that is set, else the current one, else the only one."""
    if _state is None:
        return None
    configured = settings.get().app
    if configured is not None:
        return _load(configured)
    current = current_app()
    if current is not None and has_broker(current):
        return current
    others = [app for app in _state._get_active_apps() if app is not current and has_broker(app)]
    if len(others) > 1:
        names = ", ".join(sorted(repr(app.main) for app in others))
        raise ImproperlyConfigured(
            f"several Celery apps have a broker ({names}) and none is current in this thread; "
            f"name the one that carries signals in ASYNC_SIGNALS['app']"
        )
    return others[0] if others else None


def current_app() -> Any:
    """The app that is current in this thread, without making one."""
    return _state._tls.current_app or _state.default_app


def has_broker(app: Celery) -> bool:
    """Whether the app was told a broker. Celery's silent default, amqp://localhost, does not count."""
    return bool(app.conf.broker_write_url)


def _load(app: Any) -> Celery:
    if not isinstance(app, str):
        return app
    module_name, _, attribute = app.replace(":", ".").rpartition(".")
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
        return getattr(module, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(f"ASYNC_SIGNALS['app'] is {app!r}, which cannot be loaded: {error}") from error
