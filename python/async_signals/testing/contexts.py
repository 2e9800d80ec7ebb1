"""What holds for a block, for a function, or for each test of a class."""

from __future__ import annotations

import functools
import inspect
import unittest
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

Entered = TypeVar("Entered")


class ContextDecorator(ABC, Generic[Entered]):
    """A context manager that also decorates functions, coroutine functions, and subclasses of ``unittest.TestCase``.

    One object may be entered several times, also by several threads: each time stands for itself.
    """

    def __init__(self) -> None:
        self._entered: list[AbstractContextManager[Entered]] = []

    @abstractmethod
    def _context(self) -> AbstractContextManager[Entered]:
        """A context of its own for each time that it is entered."""

    def __enter__(self) -> Entered:
        context = self._context()
        entered = context.__enter__()
        self._entered.append(context)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, traceback)

    def __call__(self, decorated: Any) -> Any:
        if isinstance(decorated, type):
            return self._decorate_class(decorated)
        if not callable(decorated):
            raise TypeError(f"{type(self).__name__}() decorates functions and classes, not {decorated!r}")
        if inspect.iscoroutinefunction(decorated):

            @functools.wraps(decorated)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._context():
                    return await decorated(*args, **kwargs)

            return coroutine

        @functools.wraps(decorated)
        def function(*args: Any, **kwargs: Any) -> Any:
            with self._context():
                return decorated(*args, **kwargs)

        return function

    def _decorate_class(self, decorated: Any) -> Any:
        if not issubclass(decorated, unittest.TestCase):
            raise TypeError(
                f"{type(self).__name__}() decorates subclasses of unittest.TestCase, which {decorated.__qualname__} is "
                f"not; decorate its methods, or use a fixture"
            )
        set_up = decorated.setUp

        @functools.wraps(set_up)
        def enter_and_set_up(test: unittest.TestCase) -> None:
            test.enterContext(self._context())
            set_up(test)

        decorated.setUp = enter_and_set_up
        return decorated
