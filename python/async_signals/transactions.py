"""Signals of a transaction wait for its commit, and go with a rollback."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.db import DEFAULT_DB_ALIAS, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError

from . import compat, settings
from .errors import SignalNotSent

if TYPE_CHECKING:
    from .sending import PendingSend, StartedSend

logger = logging.getLogger("async_signals")


class _Connections(threading.local):
    """This thread's database connections.

    Django's own handler looks through a context-aware store, which costs more
    than all the rest of a background send; a connection is announced when it is
    made, so that this list is enough.
    """

    #: None: not looked for yet. Settings may be half read when this module is imported.
    known: list[weakref.ref[BaseDatabaseWrapper]] | None = None

    def look(self) -> list[weakref.ref[BaseDatabaseWrapper]]:
        if not django_settings.configured:
            return []  # without settings there are no databases
        self.known = []
        for connection in connections.all(initialized_only=True):
            self.add(connection)
        return self.known

    def add(self, connection: BaseDatabaseWrapper) -> None:
        if self.known is not None and all(known() is not connection for known in self.known):
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
        ConnectionDoesNotExist: There is no database of that alias.
        TransactionManagementError: Autocommit is off, so that no commit is announced; or several
            databases have a transaction open and nothing tells which one counts.
    """
    if database is not None:
        connections[database]  # raises where there is none
    mine = _mine.known
    for known in _mine.look() if mine is None else mine:
        connection = known()
        if connection is not None and (connection.in_atomic_block or not connection.autocommit):
            return _choose(sender, named, database)
    return None


def _choose(sender: Any, named: dict[str, Any], database: str | None) -> BaseDatabaseWrapper | None:
    open_blocks = {
        connection.alias: connection
        for known in _mine.known or ()
        if (connection := known()) is not None and connection.connection is not None and _is_open(connection)
    }
    if not open_blocks:
        return None
    if database is not None:
        connection = open_blocks.get(database)
    else:
        # Where its row is written is where it is committed, wherever it was read.
        written = (_written_to(value) for value in (sender, *named.values()))
        alias = next((alias for alias in written if alias in open_blocks), None)
        if alias is None and len(open_blocks) > 1:
            raise TransactionManagementError(
                f"transactions are open on {', '.join(sorted(open_blocks))}; say which one the signal waits for with "
                f"options(database=...), or send it at once with options(on_commit=False)"
            )
        connection = next(iter(open_blocks.values())) if alias is None else open_blocks[alias]
    if connection is not None and not connection.in_atomic_block:
        raise TransactionManagementError(
            f"autocommit is off on database {connection.alias!r}, so its commit is not announced; send the signal "
            f"after the commit with options(on_commit=False)"
        )
    return connection


def _is_open(connection: BaseDatabaseWrapper) -> bool:
    # The blocks that TestCase opens around a test are not the program's.
    if connection.in_atomic_block:
        blocks = connection.atomic_blocks
        return not blocks or not all(map(compat.is_testcase_block, blocks))
    return not connection.autocommit


def _written_to(value: Any) -> str | None:
    """The database that a model instance is written to; None for all else."""
    # Loading models at import would load Django's signals with them, before anybody can put ours in their place.
    from django.db.models import Model

    return router.db_for_write(type(value), instance=value) if isinstance(value, Model) else None


def publish_on_commit(connection: BaseDatabaseWrapper, send: PendingSend) -> None:
    """Keeps a send until the transaction commits."""
    before = compat.last_commit_hook(connection)
    hook = _CommitHook(connection, send)
    # As users call it: tests replace the function to have hooks run at once.
    if connection.alias == DEFAULT_DB_ALIAS:
        transaction.on_commit(hook.publish)
    else:
        transaction.on_commit(hook.publish, using=connection.alias)
    if isinstance(before, _CommitHook) and compat.last_commit_hook(connection) is hook:
        before.following = weakref.ref(hook)


def waiting() -> list[tuple[PendingSend, bool]]:
    """The sends of this thread that hooks hold, and whether the program itself has a transaction open around each.

    Also those whose hook was run by a capture of Django's: it leaves them where they are.
    """
    return [
        (hook.send, _is_open(connection))
        for connection in _all()
        for hook in compat.commit_hooks(connection)
        if isinstance(hook, _CommitHook)
    ]


def in_testcase() -> list[BaseDatabaseWrapper]:
    """This thread's connections whose outermost transaction is the one that Django's ``TestCase`` never commits."""
    return [connection for connection in _all() if any(map(compat.is_testcase_block, connection.atomic_blocks))]


def _all() -> list[BaseDatabaseWrapper]:
    known = _mine.look() if _mine.known is None else _mine.known
    return [connection for reference in known if (connection := reference()) is not None]


#: Counts hooks and runs of them, to tell which came first.
_numbers = itertools.count()


class _CommitHook:
    """Publishes one signal after the commit, and no other, whoever calls it and in whatever order.

    Of hooks that stand one right behind the other, each hands its signal over, and the last waits for all of them:
    what the broker needs for one it then needs once for many.
    """

    __slots__ = ("__weakref__", "_connection", "_number", "following", "send")

    def __init__(self, connection: BaseDatabaseWrapper, send: PendingSend) -> None:
        self._number = next(_numbers)
        self._connection = connection
        self.send = send
        #: The hook right behind this one, as long as it is there: the rollback of a savepoint drops those in it.
        self.following: weakref.ref[_CommitHook] | None = None

    def publish(self) -> None:
        """What Django calls after the commit. Raises only what receivers raise that run here."""
        run = _run_of(self._connection, self._number)
        if self.send.is_eager:
            run.settle()
            self.send.publish()
            return
        run.start(self.send)
        if self.following is None or self.following() is None:
            run.settle()


class _Run:
    """The signals that one commit publishes, or one capture.

    They share one deadline: the time that all of its hooks take together, from the first, without those of others.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        #: The number of the hook that ran last.
        self.last = -1
        self._timeout = self._left = settings.get().publish_timeout
        self._started: list[StartedSend] = []

    def includes(self, number: int) -> bool:
        """Whether a hook may be of this run: registered before it began, and behind the last that ran in it."""
        return self.last < number < self.number

    def start(self, send: PendingSend) -> None:
        """Hands a signal over, without waiting for it. Never raises into Django: the commit has happened."""
        began = time.monotonic()
        try:
            if self._left <= 0:
                raise SignalNotSent(
                    f"the signals of its transaction took longer than {self._timeout:g} s together", "deadline"
                )
            started = send.start(self._left)
        except Exception as error:
            send.report(error)
        else:
            if started is not None:
                self._started.append(started)
        finally:
            self._left -= time.monotonic() - began

    def settle(self) -> None:
        """Waits for all that was handed over, until the deadline at most."""
        began = time.monotonic()
        started, self._started = self._started, []
        try:
            for each in started:
                each.settle()
        finally:
            self._left -= time.monotonic() - began


#: How many commits within one another are told apart.
_MOST_RUNS = 8
#: The last runs of each connection, which is one thread's.
_runs: weakref.WeakKeyDictionary[BaseDatabaseWrapper, list[_Run]] = weakref.WeakKeyDictionary()


def _run_of(connection: BaseDatabaseWrapper, number: int) -> _Run:
    """The run that a hook belongs to. Somebody else's hook may have committed meanwhile, which is a run of its own."""
    runs = _runs.setdefault(connection, [])
    found = next((run for run in reversed(runs) if run.includes(number)), None)
    if found is None:
        found = _Run()
        runs.append(found)
    ended = runs[runs.index(found) + 1 :] + runs[:-_MOST_RUNS]
    for run in ended:
        runs.remove(run)
        run.settle()
    found.last = number
    return found


def settle() -> None:
    """Waits for what hooks have handed over and nobody has waited for, since what stood behind them never ran."""
    for runs in list(_runs.values()):
        for run in runs:
            run.settle()


def in_blocks() -> frozenset[str]:
    """The aliases of the databases on which this thread has a block of ``atomic`` open."""
    return frozenset(
        connection.alias for connection in connections.all(initialized_only=True) if connection.in_atomic_block
    )


def leave_blocks(used: Iterable[BaseDatabaseWrapper] | None = None, kept: Collection[str] = ()) -> None:
    """In a worker, after a message: ends the transactions that its receivers have begun and not ended. Never raises.

    What comes next would be written into them, and its signals would wait for a commit that nobody makes.

    Arguments:
        used: The thread's connections; None: all that it has.
        kept: The aliases of databases whose blocks are somebody else's.
    """
    for connection in connections.all(initialized_only=True) if used is None else used:
        if connection.alias in kept:
            continue
        try:
            was_open = compat.leave_blocks(connection)
        except Exception:
            # The receivers have done their work; the block is left all the same.
            logger.exception("The connection to database %r could not be closed", connection.alias)
            was_open = True
        if was_open:
            logger.warning(
                "A receiver has begun a transaction on database %r and not ended it: it is rolled back",
                connection.alias,
            )
