"""Captures for the test cases of unittest and Django."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

from .capture import CapturedSignal, CapturedSignals, capture_signals
from .running import ReceiverRuns

if TYPE_CHECKING:
    from async_signals.dispatcher import AsyncSignal

    _Base = unittest.TestCase
else:
    _Base = object


class SignalsTestMixin(_Base):
    """Captures what each test sends, for ``TestCase``, ``TransactionTestCase``, ``SimpleTestCase`` and unittest's own.

    It goes before the test case: ``class OrderTests(SignalsTestMixin, TestCase)``. What ``setUpClass`` and
    ``setUpTestData`` send is captured too, by the class.

    Attributes:
        signals: What was sent so far: in the test with its ``setUp``; of the class, in ``setUpClass``.
    """

    signals: CapturedSignals

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        order = cls.__mro__
        if unittest.TestCase in order and order.index(SignalsTestMixin) > order.index(unittest.TestCase):
            raise TypeError(f"{cls.__qualname__} captures nothing: name SignalsTestMixin before its test case")

    @classmethod
    def setUpClass(cls) -> None:
        cls.signals = cls.enterClassContext(capture_signals())
        super().setUpClass()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        with capture_signals() as self.signals:
            return super().run(result)

    def debug(self) -> None:
        with capture_signals() as self.signals:
            super().debug()

    def assertSignalSent(  # noqa: N802 - as unittest's own
        self,
        signal: AsyncSignal,
        /,
        sender: Any = ANY,
        times: int | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CapturedSignal:
        """As ``CapturedSignals.assert_sent``."""
        __tracebackhide__ = True
        return self.signals.assert_sent(signal, sender, times, options, **kwargs)

    def assertSignalNotSent(  # noqa: N802 - as unittest's own
        self,
        signal: AsyncSignal,
        /,
        sender: Any = ANY,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """As ``CapturedSignals.assert_not_sent``."""
        __tracebackhide__ = True
        self.signals.assert_not_sent(signal, sender, options, **kwargs)

    def runSignals(self, *, reraise: bool = True) -> ReceiverRuns:  # noqa: N802 - as unittest's own
        """As ``CapturedSignals.run``."""
        __tracebackhide__ = True
        return self.signals.run(reraise=reraise)

    def drainSignals(self, limit: int = 1000, *, reraise: bool = True) -> ReceiverRuns:  # noqa: N802 - as unittest's own
        """As ``CapturedSignals.drain``."""
        __tracebackhide__ = True
        return self.signals.drain(limit, reraise=reraise)

    async def arunSignals(self, *, reraise: bool = True) -> ReceiverRuns:  # noqa: N802 - as unittest's own
        """As ``CapturedSignals.arun``."""
        __tracebackhide__ = True
        return await self.signals.arun(reraise=reraise)

    async def adrainSignals(self, limit: int = 1000, *, reraise: bool = True) -> ReceiverRuns:  # noqa: N802 - as unittest's
        """As ``CapturedSignals.adrain``."""
        __tracebackhide__ = True
        return await self.signals.adrain(limit, reraise=reraise)
