"""Django's request signals, forwarded."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

from django.core import signals as core

from .signals import request_finished, request_started

logger = logging.getLogger("async_signals")

_current: ContextVar[dict[str, Any] | None] = ContextVar("async_signals_request", default=None)


def connect() -> None:
    """Forwards Django's signals from now on, as long as something listens to ours."""
    core.request_started.connect(_started, dispatch_uid="async_signals.requests")
    core.request_finished.connect(_finished, dispatch_uid="async_signals.requests")


def _started(sender: Any, environ: dict[str, Any] | None = None, scope: dict[str, Any] | None = None, **_: Any) -> None:
    if not (request_started.receivers or request_finished.receivers):
        return
    try:
        described = _of_wsgi(environ) if environ is not None else _of_asgi(scope or {})
        _current.set(described)
        if request_started.has_listeners(sender):
            request_started.options(durability="background", on_commit=False).send(sender, **described)
    except Exception:
        logger.exception("request_started was not forwarded")


def _finished(sender: Any, **_: Any) -> None:
    if not request_finished.receivers:
        return
    try:
        if request_finished.has_listeners(sender):
            described = _current.get() or {}
            request_finished.options(durability="background", on_commit=False).send(sender, **described)
    except Exception:
        logger.exception("request_finished was not forwarded")


def _of_wsgi(environ: dict[str, Any]) -> dict[str, Any]:
    """What may leave the process of a WSGI request: no headers, cookies or bodies."""
    return {
        "method": environ.get("REQUEST_METHOD", ""),
        "path": environ.get("PATH_INFO", ""),
        "query_string": environ.get("QUERY_STRING", ""),
        "host": environ.get("HTTP_HOST") or environ.get("SERVER_NAME", ""),
        "scheme": environ.get("wsgi.url_scheme", ""),
        "remote_addr": environ.get("REMOTE_ADDR", ""),
    }


def _of_asgi(scope: dict[str, Any]) -> dict[str, Any]:
    """The same of an ASGI request."""
    headers = dict(scope.get("headers") or ())
    client = scope.get("client") or ("",)
    return {
        "method": scope.get("method", ""),
        "path": scope.get("path", ""),
        "query_string": scope.get("query_string", b"").decode("latin-1"),
        "host": headers.get(b"host", b"").decode("latin-1"),
        "scheme": scope.get("scheme", ""),
        "remote_addr": client[0] or "",
    }
