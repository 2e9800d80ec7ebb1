"""Signals of a transaction wait for its commit, and go with a rollback."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError


class _Connections(threading.local):
    """This thread's database connections.

    Django's own handler looks through a context-aware store, which costs more
    than all the rest of a background send; a connection is announced when it is
    made, so that this list is enough.
    """

    def __init__(self) -> None:
        self.known: list[weakref.ref[BaseDatabaseWrapper]] = []
        try:
            for connection in connections.all(initialized_only=True):
                self.add(connection)
        except ImproperlyConfigured:
            pass  # Without settings there are no databases.

    def add(self, connection: BaseDatabaseWrapper) -> None:
        if all(known() is not connection for known in self.known):
            self.known = [known for known in self.known if known() is not None]
            self.known.append(weakref.ref(connection))


_mine = _Connections()


def _remember(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    _mine.add(connection)


connection_created.connect(_remember, dispatch_uid="async_signals.transactions")


def pending(sender: Any, named: dict[str, Any], database: str | None) -> BaseDatabaseWrapper | None:
    """The connection whose commit a send has to wait for, if it has to.

    Arguments:
        sender: The sender of the signal; an instance's database is the one that counts.
        named: The arguments of the signal.
        database: The alias that the caller gave, if any.

    Raises:
        TransactionManagementError: Autocommit is off, so that no commit is announced; or several
            databases have a transaction open and nothing tells which one counts.
    """
    for known in _mine.known:
        connection = known()
        if connection is not None and (connection.in_atomic_block or not connection.autocommit):
            return _choose(sender, named, database)
    return None


def _choose(sender: Any, named: dict[str, Any], database: str | None) -> BaseDatabaseWrapper | None:
    open_blocks = {
        connection.alias: connection
        for known in _mine.known
        if (connection := known()) is not None and connection.connection is not None and _is_open(connection)
    }
    if not open_blocks:
        return None
    alias = database or _database_of(sender) or next(filter(None, map(_database_of, named.values())), None)
    if alias is None and len(open_blocks) > 1:
        raise TransactionManagementError(
            f"transactions are open on {', '.join(sorted(open_blocks))}; say which one the signal waits for with "
            f"options(database=...), or send it at once with options(on_commit=False)"
        )
    connection = open_blocks.get(alias) if alias is not None else next(iter(open_blocks.values()))
    if connection is not None and not connection.in_atomic_block:
        raise TransactionManagementError(
            f"autocommit is off on database {connection.alias!r}, so its commit is not announced; send the signal "
            f"after the commit with options(on_commit=False)"
        )
    return connection


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    # The blocks that TestCase opens around a test are not the program's.
    blocks = getattr(connection, "atomic_blocks", ())
    if connection.in_atomic_block:
        return not blocks or any(not getattr(block, "_from_testcase", False) for block in blocks)
    return not connection.autocommit


def _database_of(value: Any) -> str | None:
    state = getattr(value, "_state", None)
    return getattr(state, "db", None) if state is not None else None


class _Transaction:
    """What one transaction is to send. It has a hook for each savepoint that sent something."""

    __slots__ = ("__weakref__", "hooks", "ready")

    def __init__(self) -> None:
        #: Hooks that did not run yet. A savepoint's rollback drops its hooks, and so they vanish from here.
        self.hooks: weakref.WeakSet[_Hook] = weakref.WeakSet()
        #: What hooks that ran have handed on.
        self.ready: list[Any] = []


class _Hook:
    """Runs at commit: hands its sends on, and publishes all of them when it is the last."""

    __slots__ = ("__weakref__", "publish", "sends", "transaction")

    def __init__(self, transaction: _Transaction, publish: Callable[[list[Any]], None]) -> None:
        self.transaction = transaction
        self.publish = publish
        self.sends: list[Any] = []
        transaction.hooks.add(self)

    def __call__(self) -> None:
        transaction = self.transaction
        transaction.hooks.discard(self)
        transaction.ready.extend(self.sends)
        if not transaction.hooks:
            self.publish(transaction.ready)


def publish_on_commit(connection: BaseDatabaseWrapper, send: Any, publish: Callable[[list[Any]], None]) -> None:
    """Keeps a send until the transaction commits; ``publish`` then gets all of its sends at once."""
    savepoints = set(connection.savepoint_ids)
    transaction: _Transaction | None = None
    for sids, function, *_ in reversed(connection.run_on_commit):
        if isinstance(function, _Hook) and function.publish is publish:
            if sids == savepoints:
                function.sends.append(send)
                return
            transaction = transaction or function.transaction
    hook = _Hook(transaction or _Transaction(), publish)
    hook.sends.append(send)
    connection.on_commit(hook, robust=True)
