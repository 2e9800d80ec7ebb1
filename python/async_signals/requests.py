"""Django's request signals, forwarded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any

from django.core import signals as core

from .errors import SignalNotSent
from .signals import request_finished, request_started

logger = logging.getLogger("async_signals")

#: What is told of a request. What cannot be known is an empty string: a receiver that names it is called all the same.
_UNKNOWN = dict.fromkeys(("method", "path", "query_string", "host", "scheme", "remote_addr"), "")

#: The request that is being answered, in the context that its handler runs in: a thread's under WSGI, a task's under
#: ASGI. Django tells the receivers of ``request_finished`` nothing of it.
_current: ContextVar[dict[str, str] | None] = ContextVar("async_signals_request", default=None)


def connect() -> None:
    """Forwards Django's signals from now on, as long as something listens to ours."""
    core.request_started.connect(_started, dispatch_uid="async_signals.requests")
    core.request_finished.connect(_finished, dispatch_uid="async_signals.requests")
    if getattr(core.request_started.asend, "__module__", None) != __name__:
        vars(core.request_started)["asend"] = _noting(core.request_started.asend)


def _noting(send: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """``request_started.asend``, which ASGI handlers await, so that it notes the request in the handler's own context.

    A receiver cannot do that: before Django 6.1, ``asend`` runs receivers in tasks of their own, with copies of the
    context, and nothing that they set there is seen when the request ends. A middleware could, but somebody would have
    to add it, and it does not see the requests that a handler answers by itself. What ``asend`` does before its first
    ``await`` is in the handler's context under every handler, that of Django's test client among them.
    """

    async def asend(sender: Any, **named: Any) -> Any:
        _note(named.get("environ"), named.get("scope"))
        return await send(sender, **named)

    return asend


def _started(sender: Any, environ: Any = None, scope: Any = None, **_: Any) -> None:
    described = _note(environ, scope)
    if described is None:
        return
    try:
        if request_started.has_listeners(sender):
            request_started.options(durability="background", on_commit=False).send(sender, **described)
    except Exception as error:
        _log(error, "request_started")


def _finished(sender: Any, **_: Any) -> None:
    described = _current.get() or _UNKNOWN
    # A thread answers one request after the other: nothing of this one is left for the next.
    _current.set(None)
    if not request_finished.receivers:
        return
    try:
        if request_finished.has_listeners(sender):
            request_finished.options(durability="background", on_commit=False).send(sender, **described)
    except Exception as error:
        _log(error, "request_finished")


def _log(error: Exception, signal: str) -> None:
    # A broker that is gone is no fault of the program: where it was met tells nobody anything.
    logger.error("%s was not forwarded: %s", signal, error, exc_info=not isinstance(error, SignalNotSent))


def _note(environ: Any, scope: Any) -> dict[str, str] | None:
    """Makes a request the current one, in place of whichever was, and describes it if anything listens."""
    _current.set(None)
    if not (request_started.receivers or request_finished.receivers):
        return None
    try:
        described = _of_wsgi(environ) if environ is not None else _of_asgi(scope or {})
    except Exception:
        logger.exception("A request could not be described; it is forwarded without its fields")
        described = dict(_UNKNOWN)
    _current.set(described)
    return described


def _of_wsgi(environ: Mapping[str, Any]) -> dict[str, str]:
    """What may leave the process of a WSGI request: no headers, cookies or bodies."""
    return {
        "method": _text(environ.get("REQUEST_METHOD")),
        "path": _path(environ.get("SCRIPT_NAME") or "", environ.get("PATH_INFO") or ""),
        "query_string": _text(environ.get("QUERY_STRING")),
        "host": _text(environ.get("HTTP_HOST") or environ.get("SERVER_NAME")),
        "scheme": _text(environ.get("wsgi.url_scheme")),
        "remote_addr": _text(environ.get("REMOTE_ADDR")),
    }


def _of_asgi(scope: Mapping[str, Any]) -> dict[str, str]:
    """The same of an ASGI request."""
    headers = dict(scope.get("headers") or ())
    return {
        "method": _text(scope.get("method")),
        "path": _text(scope.get("path")),
        "query_string": _text(scope.get("query_string")),
        "host": _text(headers.get(b"host") or _first(scope.get("server"))),
        "scheme": _text(scope.get("scheme")),
        "remote_addr": _text(_first(scope.get("client"))),
    }


def _path(mounted: str, path: str) -> str:
    """The whole path, as ASGI has it and as ``request.path`` has it: WSGI hands over bytes in the guise of Latin-1."""
    whole = mounted.rstrip("/") + path
    try:
        return whole.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return whole


def _first(address: Any) -> Any:
    """The host of an address; nothing of a Unix socket's, which has none."""
    return address[0] if address else ""


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
