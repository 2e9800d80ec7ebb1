"""How to reach an app's broker in the core's words, and when that is Celery's to do.

The core speaks to a broker only where kombu's own transport would, and only with options that it honours or that
change nothing for it: one that it does not know may decide whether one can connect at all, or which keys are written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from async_signals import compat
from async_signals.errors import BrokerMisconfigured
from async_signals.routing import NotNative

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: The schemes that the core knows, by kombu's transport; and those that stand for TLS.
_SCHEMES = {
    "amqp": {"amqp", "amqps", "pyamqp"},
    "redis": {"redis", "rediss", "redis+socket"},
    "sqlalchemy": {"sqla+sqlite"},
}
_ENCRYPTED = {"amqp": "amqps", "pyamqp": "amqps", "redis": "rediss"}


class _Options(NamedTuple):
    """Options of one kind of broker: those that the core honours, and those that change nothing for it."""

    honoured: frozenset[str]
    harmless: frozenset[str]
    query: frozenset[str]


#: kombu's pauses between tries: the core has its own, within the deadline.
_RETRIES = {"max_retries", "interval_start", "interval_step", "interval_max", "errback", "callback", "retry_errors"}
_OPTIONS = {
    "amqp": _Options(
        frozenset(),
        frozenset(
            {
                *_RETRIES,
                "confirm_publish",  # always
                "read_timeout",  # within publish_timeout
                "write_timeout",
                "connect_timeout",
            }
        ),
        frozenset({"heartbeat", "connect_timeout"}),
    ),
    "redis": _Options(
        frozenset(
            {
                "fanout_patterns",
                "fanout_prefix",
                "global_keyprefix",
                "sep",
                "priority_steps",
                "unacked_key",
                "unacked_index_key",
                "visibility_timeout",
                "socket_keepalive",
            }
        ),
        frozenset(
            {
                *_RETRIES,
                "ack_emulation",
                "health_check_interval",
                "max_connections",
                "polling_interval",
                "queue_order_strategy",
                "retry_on_timeout",
                "socket_connect_timeout",  # within publish_timeout
                "socket_keepalive_options",
                "socket_timeout",
                "unacked_mutex_expire",
                "unacked_mutex_key",
                "unacked_restore_interval",
                "unacked_restore_limit",
                "unacked_restore_throttle",
            }
        ),
        frozenset(
            {
                "ssl_ca_certs",
                "ssl_cert_reqs",
                "ssl_certfile",
                "ssl_check_hostname",
                "ssl_keyfile",
                "virtual_host",
            }
        ),
    ),
    "sqlalchemy": _Options(
        frozenset({"queue_tablename", "message_tablename"}),
        frozenset(_RETRIES),
        frozenset(),
    ),
}
#: What ``broker_use_ssl`` may hold, in the words of Python's ssl module; redis-py puts ``ssl_`` before each.
_TLS = frozenset({"ca_certs", "cert_reqs", "certfile", "keyfile"})


def broker_options(app: Celery, connection: Connection | None = None) -> dict[str, Any]:
    """How to reach the app's broker.

    Arguments:
        connection: A connection that is not connected; None: the one that Celery would publish through.

    Raises:
        NotNative: The core does not speak to it as Celery would.
        BrokerMisconfigured: The app's broker settings cannot be right.
    """
    try:
        connection = app.connection_for_write() if connection is None else connection
        urls = [url for url in connection.alt if url] or [_only_url(app.conf.broker_write_url)]
        kinds = [_kind(connection, number, url) for number, url in enumerate(urls)]
    except KeyError as error:  # kombu's word for a scheme that it has no transport for
        raise BrokerMisconfigured(f"broker_url cannot be used: {error.args[0]}") from None
    for name in ("user", "password", "vhost", "port"):
        if getattr(app.conf, f"broker_{name}"):
            raise NotNative(f"broker_{name} is set; put it into broker_url")
    if (connection.login_method or "PLAIN") != "PLAIN":
        raise NotNative(f"broker_login_method is {connection.login_method!r}")
    if getattr(connection, "credential_provider", None):  # older kombus have none
        raise NotNative("a credential_provider is set")
    if len(urls) > 1 and app.conf.broker_failover_strategy not in (None, "round-robin"):
        raise NotNative(f"broker_failover_strategy is {app.conf.broker_failover_strategy!r}")
    _refuse_database_file(urls)
    options: dict[str, Any] = {}
    for kind, url in zip(kinds, urls, strict=True):
        options.update(_transport_options(kind, connection.transport_options or {}))
        _check_query(kind, url)
    return {
        "urls": [_encrypted(url) for url in urls] if connection.ssl else urls,
        "transport_options": options,
        "tls": _tls(app.conf.broker_use_ssl),
    }


def _only_url(url: Any) -> str:
    return url if isinstance(url, str) else url[0]


def _kind(connection: Connection, number: int, url: str) -> str:
    """Which of kombu's own transports a URL leads to: by the class that kombu takes for it, not by its scheme."""
    from kombu.transport import get_transport_cls

    scheme = url.partition("://")[0]
    # What `broker_transport` names goes for the first URL alone: kombu takes the others by their schemes.
    transport = connection.get_transport_cls() if number == 0 else get_transport_cls(scheme.partition("+")[0])
    kind = compat.native_transport(transport)
    if kind is None:
        raise NotNative(f"{scheme}:// is {transport.__module__}.{transport.__qualname__} here")
    if scheme not in _SCHEMES[kind]:
        raise NotNative(f"the native publisher does not speak {scheme}")
    return kind


def _transport_options(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Those of ``broker_transport_options`` that the core honours."""
    known = _OPTIONS[kind]
    for name in given:
        if name not in known.honoured and name not in known.harmless:
            raise NotNative(f"broker_transport_options has {name!r}")
    return {name: value for name, value in given.items() if name in known.honoured}


def _check_query(kind: str, url: str) -> None:
    for name, _ in parse_qsl(urlsplit(url).query):
        if name not in _OPTIONS[kind].query:
            raise NotNative(f"the broker's URL has {name!r}")


def _encrypted(url: str) -> str:
    """The URL with the scheme that stands for TLS: ``broker_use_ssl`` goes for ``amqp://`` too."""
    scheme, separator, rest = url.partition("://")
    return _ENCRYPTED.get(scheme, scheme) + separator + rest


def _tls(given: Any) -> dict[str, Any] | None:
    """``broker_use_ssl``, in the words of Python's ssl module or of redis-py.

    Not the connection's ``ssl``: kombu fills in CERT_NONE for rediss URLs, and not verifying has to be said.
    """
    if not given:
        return None
    if not isinstance(given, dict):
        given = {}
    import ssl

    options = {name.removeprefix("ssl_"): value for name, value in given.items()}
    if options.get("check_hostname") is True:
        del options["check_hostname"]  # it is looked at in any case
    unknown = sorted(set(options) - _TLS)
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
