"""One native publisher for each Celery app of this process."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import _native, settings
from ._native import Publisher
from .errors import BrokerMisconfigured, SignalNotSent
from .routing import NotNative
from .waiting import off_hub

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

logger = logging.getLogger("async_signals")

_NATIVE_SCHEMES = frozenset(
    {"amqp", "amqps", "pyamqp", "redis", "rediss", "valkey", "valkeys", "redis+socket", "sqla+sqlite"}
)
_ENCRYPTED = {"amqp": "amqps", "pyamqp": "amqps", "redis": "rediss", "valkey": "valkeys"}
_lock = threading.Lock()
#: What an app sends through: its publisher, or why the core does not speak to its broker.
_publishers: weakref.WeakKeyDictionary[Celery, Publisher | NotNative] = weakref.WeakKeyDictionary()
#: Publishers of the process that this one was forked from. They are kept for
#: ever: ending them would talk over the parent's connections.
_inherited: list[Any] = []


def for_app(app: Celery) -> Publisher:
    """The app's publisher.

    Raises:
        NotNative: The core does not speak to the app's broker.
        BrokerMisconfigured: The app's broker settings cannot be right.
    """
    publisher = _publishers.get(app)
    if publisher is None:
        with _lock:
            publisher = _publishers.get(app)
            if publisher is None:
                try:
                    publisher = _start(app)
                except NotNative as error:
                    publisher = error
                _publishers[app] = publisher
    if isinstance(publisher, NotNative):
        raise publisher
    return publisher


def flush(timeout: float | None = None) -> None:
    """Waits until the broker has every signal that was sent in the background before.

    Arguments:
        timeout: How long to wait, in seconds; ``flush_timeout`` if None.

    Raises:
        SignalNotSent: Some are not there yet. They stay on their way.
    """
    patience = settings.get().flush_timeout if timeout is None else timeout
    for publisher in list(_publishers.values()):
        if isinstance(publisher, Publisher):
            off_hub(partial(publisher.flush, patience))


def broker_options(app: Celery) -> dict[str, Any]:
    """How to reach the app's broker, in the core's words.

    Raises:
        NotNative: The core does not speak to it.
        BrokerMisconfigured: The app's broker settings cannot be right.
    """
    connection = _connection(app)
    urls = _urls(connection, app.conf.broker_write_url)
    _refuse_database_file(urls)
    return {
        "urls": urls,
        "transport_options": _plain(connection.transport_options),
        "tls": _tls(app.conf.broker_use_ssl),
    }


def _start(app: Celery) -> Publisher:
    heartbeat = _connection(app).heartbeat
    options, broker = settings.get(), broker_options(app)
    from .embedded import share

    share(app, broker["urls"])
    return Publisher(
        **broker,
        observer=_Observer(options),
        timeout=float(options.publish_timeout),
        buffer_size=int(options.buffer_size),
        buffer_timeout=float(options.buffer_timeout),
        heartbeat=float(heartbeat) if heartbeat else None,
    )


def check(app: Celery) -> None:
    """Looks at the app's broker settings without connecting. Raises what ``for_app`` would."""
    broker_options(app)


def _connection(app: Celery) -> Connection:
    """The connection that Celery would publish through, not connected."""
    try:
        return app.connection_for_write()
    except KeyError as error:  # kombu's word for a scheme that it has no transport for
        raise BrokerMisconfigured(f"broker_url cannot be used: {error.args[0]}") from None


def _urls(connection: Connection, given: Any) -> list[str]:
    """Every URL that kombu would try, in its order."""
    urls = [url for url in connection.alt if url] or [given if isinstance(given, str) else given[0]]
    for url in urls:
        scheme = url.partition("://")[0]
        if scheme not in _NATIVE_SCHEMES:
            raise NotNative(f"the native publisher does not speak {scheme}")
    return [_encrypted(url) for url in urls] if connection.ssl else urls


def _encrypted(url: str) -> str:
    """The URL with the scheme that stands for TLS: ``broker_use_ssl`` goes for ``amqp://`` too."""
    scheme, separator, rest = url.partition("://")
    return _ENCRYPTED.get(scheme, scheme) + separator + rest


def _plain(value: Any) -> Any:
    """The transport options that the core could know: numbers, strings, lists and dicts of them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if _is_plain(item)}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool, dict))


def _tls(given: Any) -> dict[str, Any] | None:
    """``broker_use_ssl``, in the words of Python's ssl module or of redis-py.

    Not the connection's ``ssl``: kombu fills in CERT_NONE for rediss URLs, and not verifying has to be said.
    """
    if not given:
        return None
    if not isinstance(given, dict):
        given = {}
    import ssl

    known = {"keyfile", "certfile", "ca_certs", "cert_reqs", "check_hostname", "server_hostname"}
    options = {name.removeprefix("ssl_"): value for name, value in given.items()}
    unknown = sorted(set(options) - known)
    if unknown:
        raise NotNative(f"broker_use_ssl has {', '.join(unknown)}")
    requirement = options.get("cert_reqs", ssl.CERT_REQUIRED)
    return {
        "ca_certs": options.get("ca_certs"),
        "certfile": options.get("certfile"),
        "keyfile": options.get("keyfile"),
        "verify": requirement not in (ssl.CERT_NONE, "none", "CERT_NONE", None),
    }


def _refuse_database_file(urls: list[str]) -> None:
    from django.conf import settings as django_settings

    brokers = {os.path.abspath(url.partition(":///")[2].partition("?")[0]) for url in urls if "sqlite" in url[:12]}
    if not brokers or not django_settings.configured:
        return
    for alias, database in django_settings.DATABASES.items():
        name = database.get("NAME")
        if "sqlite" in str(database.get("ENGINE")) and name and os.path.abspath(name) in brokers:
            raise ImproperlyConfigured(
                f"the broker's file {name} is also DATABASES[{alias!r}]: a send in a transaction would wait for its "
                f"own lock; give the broker a file of its own in broker_url"
            )


class _Observer:
    """Hears on the publisher's thread what no sender waits for."""

    def __init__(self, options: settings.Settings) -> None:
        callback = options.on_failure
        self._on_failure = import_string(callback) if isinstance(callback, str) else callback

    def lost(self, task_id: str, error: SignalNotSent) -> None:
        report_failure(None, task_id, error, self._on_failure)

    def disconnected(self, error: str) -> None:
        logger.warning("Signals wait for the broker: %s", error)

    def reconnected(self) -> None:
        logger.info("The broker is back")


def report_failure(signal: Any, task_id: str, error: BaseException, on_failure: Any = None) -> None:
    """Says in the log, and to ``on_failure``, that an accepted signal could not be sent."""
    callback = on_failure if on_failure is not None else settings.get().on_failure
    if isinstance(callback, str):
        callback = import_string(callback)
    logger.error("Signal %s[%s] was not sent: %s", signal or "", task_id, error)
    if callback is not None:
        try:
            callback(signal, task_id, error)
        except Exception:
            logger.exception("on_failure failed for signal %s[%s]", signal or "", task_id)


def _after_fork_in_child() -> None:
    global _lock
    _native.after_fork_in_child()
    _lock = threading.Lock()
    _inherited.extend(_publishers.values())
    _publishers.clear()
    settings.generation += 1


os.register_at_fork(
    before=_native.before_fork, after_in_parent=_native.after_fork_in_parent, after_in_child=_after_fork_in_child
)
