"""Every private name of Django's, Celery's and kombu's that this package uses.

Each is looked up as this module is imported: a release that has renamed one is
met with an error that says so, and not with a signal that is lost. Nothing here
reads settings or touches an app.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import django
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.dummy.base import DatabaseWrapper as DummyDatabase
from django.dispatch import dispatcher

if TYPE_CHECKING:
    from celery import Celery

try:
    import celery
    import kombu
    from celery import _state
except ImportError:
    celery = kombu = _state = None

#: Whether Celery is installed. Without it signals run where they are sent.
HAS_CELERY = celery is not None


class UnsupportedVersion(ImportError):
    """A private name that this package needs is not there in the installed version of Django, Celery or kombu."""


def _need(package: Any, owner: Any, *names: str) -> None:
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        where = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", repr(owner))
        version = package.__version__ if hasattr(package, "__version__") else package.get_version()
        raise UnsupportedVersion(
            f"{package.__name__} {version} has no {', '.join(missing)} in {where}, which this version of "
            f"django-async-signals needs; install a version of {package.__name__} that it supports"
        )


# Django: the registry of receivers.

_need(django, dispatcher, "_make_id")
_need(django, dispatcher.Signal, "_live_receivers")
_need(django, dispatcher.Signal(), "_dead_receivers")

#: How Django tells receivers and senders apart in ``Signal.receivers``.
make_id: Callable[[Any], Any] = vars(dispatcher)["_make_id"]


def receiver_entry(entry: tuple[Any, ...]) -> tuple[Any, Any, bool]:
    """An entry of ``Signal.receivers``: its key, its reference to the receiver, whether that is asynchronous.

    Django 5.2 has them in threes, Django 6 in fours, with the sender's reference between the last two.
    """
    return entry[0], entry[1], entry[-1]


#: Whether Django forgets the receivers of a sender that is gone, as Django 6 does.
FORGETS_DEAD_SENDERS = django.VERSION >= (6,)


def has_dead_receivers(signal: dispatcher.Signal) -> bool:
    """Whether Django has yet to forget receivers or senders that are gone."""
    return bool(vars(signal)["_dead_receivers"])


def _check_receiver_entries() -> None:
    def receiver(**_: Any) -> None:
        """Never called."""

    signal = dispatcher.Signal()
    signal.connect(receiver, weak=False)
    [entry] = signal.receivers
    key, reference, asynchronous = receiver_entry(entry)
    if key != (make_id(receiver), make_id(None)) or reference is not receiver or asynchronous is not False:
        raise UnsupportedVersion(
            f"Django {django.get_version()} keeps receivers in another form than this version of django-async-signals "
            f"knows; install a Django that it supports"
        )


_check_receiver_entries()


# Django: transactions.

_need(django, BaseDatabaseWrapper, "on_commit", "run_and_clear_commit_hooks", "savepoint_rollback")
_need(django, DummyDatabase({}), "connection", "in_atomic_block", "settings_dict")


def commit_hooks(connection: BaseDatabaseWrapper) -> list[Any]:
    """The objects whose methods were handed to ``on_commit`` in the open transaction; None for what is no method."""
    return [getattr(hook[1], "__self__", None) for hook in connection.run_on_commit]


def last_commit_hook(connection: BaseDatabaseWrapper) -> Any:
    """The object whose method was handed to ``on_commit`` last in the open transaction; None if there is none."""
    hooks = connection.run_on_commit
    return getattr(hooks[-1][1], "__self__", None) if hooks else None


#: A thread that Python has not started, as ``current_thread`` gives it. It is never said to have ended.
ForeignThread: type[threading.Thread] = threading._DummyThread


def leave_blocks(connection: BaseDatabaseWrapper) -> bool:
    """Rolls back what was begun by ``atomic`` and never ended; whether there was anything.

    Django itself keeps a connection closed for good once it is closed within such a block.
    """
    if not connection.in_atomic_block:
        return False
    try:
        connection.close()
    finally:
        # As it is before its first use; connecting sets everything else anew.
        connection.in_atomic_block = False
        connection.connection = None
    return True


def forget_connection(connection: BaseDatabaseWrapper) -> list[Any]:
    """Has a forked process open connections of its own; returns those of its parent, and the pool of them.

    They are to be kept: closing them would talk over the parent's.
    """
    pools: dict[str, Any] = getattr(type(connection), "_connection_pools", {})  # PostgreSQL's and Oracle's
    inherited = [connection.connection, *pools.values()]
    pools.clear()
    connection.connection = None
    connection.in_atomic_block = False
    return inherited


def forget_commit_hooks(connection: BaseDatabaseWrapper, kept: int) -> None:
    """Drops the hooks of the open transaction but for the first ones, as a commit drops those that it has run."""
    del connection.run_on_commit[kept:]


def is_testcase_block(block: Any) -> bool:
    """Whether an atomic block is one that Django's ``TestCase`` opens around a test."""
    return bool(getattr(block, "_from_testcase", False))


# Celery: apps, and the task that runs.

if _state is not None:
    _need(celery, _state, "_tls", "default_app", "_get_active_apps", "_task_stack", "get_current_worker_task")
    _need(celery, _state._tls, "current_app")

#: Celery's state of apps and tasks.
celery_state: Any = _state

#: By thread, what Celery's stack of running tasks is made of, where it tells: asking the stack itself costs a fifth
#: of a send. Empty: no task runs in any thread. None: it does not tell.
running_tasks: dict[Any, Any] | None = (
    None if _state is None else getattr(getattr(_state._task_stack, "_local", None), "__storage__", None)
)


def current_app() -> Any:
    """The Celery app that is current in this thread, without making one: ``celery.current_app`` would."""
    return None if _state is None else _state._tls.current_app or _state.default_app


def active_apps() -> list[Any]:
    """The Celery apps that are alive."""
    return list(_state._get_active_apps())


def running_task() -> tuple[str, str] | None:
    """The ids of the task that a worker runs in this thread, and of its root; None outside one."""
    if not running_tasks and running_tasks is not None:
        return None
    task = _state.get_current_worker_task()
    if task is None:
        return None
    request = task.request
    return request.id, request.root_id or request.id


def changed_settings(app: Celery) -> dict[str, Any]:
    """Where ``app.conf.name = value`` goes: a dict that is cheap to look at, as settings themselves are not."""
    changes: dict[str, Any] = app.conf.maps[0]
    return changes


def forget_pools(app: Celery) -> list[Any]:
    """Has an app of a forked process open connections of its own; returns the pools of its parent.

    They are to be kept: closing their connections would talk over the parent's.
    """
    from kombu import pools

    inherited = [*pools.producers.values(), *pools.connections.values()]
    pools.producers.clear()
    pools.connections.clear()
    app._after_fork()
    return inherited


def close_pools(app: Celery) -> None:
    """Closes the connections that the app has opened for publishing."""
    if app._pool is not None:
        app._pool.force_close_all()


def set_pools_aside(app: Celery) -> Callable[[], None]:
    """Has the app make new pools for publishing, for other settings; returns what puts the old ones back."""
    amqp = app.amqp
    _need(celery, type(amqp), "_producer_pool")
    connections, producers = app._pool, amqp._producer_pool
    app._pool = amqp._producer_pool = None

    def put_back() -> None:
        app._pool, amqp._producer_pool = connections, producers

    return put_back


def set_current_apps_aside() -> Callable[[], None]:
    """Returns what makes those apps current, and everybody's default, again that are so now in this thread."""
    current, default = _state._tls.current_app, _state.default_app

    def put_back() -> None:
        _state._tls.current_app, _state.default_app = current, default

    return put_back


def replace_producer_pool(app: Celery, pool: Any) -> None:
    """Has Celery take its producers from another pool."""
    _need(celery, type(app.amqp), "_producer_pool")
    app.amqp._producer_pool = pool


# kombu: publishing, and what a transport is.

#: Where kombu's own transports are defined, by the name that the core has for them.
_TRANSPORTS = {
    "kombu.transport.pyamqp": "amqp",
    "kombu.transport.librabbitmq": "amqp",
    "kombu.transport.redis": "redis",
    "kombu.transport.sqlalchemy": "sqlalchemy",
}
#: The functions of a transport's channel by which a message leaves.
_PUBLISHING = ("basic_publish", "_put", "_lookup", "queue_bind", "prepare_message")


def native_transport(transport: type) -> str | None:
    """Which of kombu's own transports a class is, as kombu made it: "amqp", "redis", "sqlalchemy"; None: another.

    A transport of somebody else may stand behind the same scheme and write to other keys; and so may kombu's own,
    when somebody has replaced a function of it.
    """
    kind = _TRANSPORTS.get(transport.__module__)
    module = inspect.getmodule(transport)
    if kind is None or module is None or vars(module).get(transport.__name__) is not transport:
        return None
    # Those of virtual transports are the transport's own; that of AMQP is its connection's.
    channel = getattr(transport, "Channel", None) or getattr(getattr(transport, "Connection", None), "Channel", None)
    if channel is not None and any(is_patched(channel, name) for name in _PUBLISHING):
        return None
    return kind


def is_patched(owner: type, name: str) -> bool:
    """Whether a method is not the one that Celery, kombu or py-amqp have defined.

    A wrapper lives in its author's module, and so do its globals; ``functools.wraps`` copies only names, and wrapt
    makes an object of another type.
    """
    function = inspect.getattr_static(owner, name, None)
    if type(function) is not FunctionType:
        return function is not None and not inspect.ismethoddescriptor(function) and not inspect.isbuiltin(function)
    home = function.__module__
    return function.__globals__.get("__name__") != home or home.partition(".")[0] not in ("kombu", "celery", "amqp")


def check_producer() -> None:
    """Asserts what a stand-in for kombu's ``Producer`` relies on. Called where that is imported at all."""
    from kombu import Producer

    _need(kombu, Producer, "_prepare", "_publish", "publish", "revive")
    parameters = list(inspect.signature(Producer._publish).parameters)[1:12]
    expected = [
        *("body", "priority", "content_type", "content_encoding", "headers", "properties"),
        *("routing_key", "mandatory", "immediate", "exchange", "declare"),
    ]
    if parameters != expected:
        raise UnsupportedVersion(
            f"kombu {kombu.__version__} publishes by other arguments ({', '.join(parameters)}) than this version of "
            f"django-async-signals knows; install a kombu that it supports"
        )
