"""The commit that a ``TestCase`` never makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from async_signals import compat, transactions


@contextmanager
def commits() -> Iterator[None]:
    """Runs the hooks that ``on_commit`` is given in the block at its end, where a ``TestCase`` would never run them.

    On all databases that a ``TestCase`` has a transaction open on. They are run once, as by a commit: captures around
    this one do not run them again. Does nothing where commits are real.
    """
    with ExitStack() as stack:
        for connection in transactions.in_testcase():
            from django.test import TestCase

            stack.callback(compat.forget_commit_hooks, connection, len(connection.run_on_commit))
            stack.enter_context(TestCase.captureOnCommitCallbacks(using=connection.alias, execute=True))
        yield
