"""``mute()``: sends that do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from async_signals import interceptors
from async_signals.dispatcher import AsyncSignal

from .checking import check_signals
from .contexts import ContextDecorator


class mute(ContextDecorator[None]):  # noqa: N801 - written as a function is, like Django's override_settings
    """Has sends of these signals do nothing: no message leaves, and no receiver is called here.

    A send returns an id all the same. What is muted is not captured either. It holds for the whole process, for
    each thread.

    A context manager, and a decorator of functions, coroutine functions, and test cases.

    Arguments:
        signals: The signals; none given: all of them.

    Raises:
        TypeError: Something else than an ``AsyncSignal`` was given.

    >>> from async_signals.signals import request_finished
    >>> with mute(request_finished):
    ...     sent = request_finished.send(None, path="/")
    >>> list(sent), len(sent.id)
    ([], 36)
    """

    def __init__(self, *signals: AsyncSignal) -> None:
        super().__init__()
        self._signals = check_signals(signals, "mute")

    @contextmanager
    def _context(self) -> Iterator[None]:
        token = interceptors.add_mute(interceptors.Mute(self._signals))
        try:
            yield
        finally:
            interceptors.remove(token)
