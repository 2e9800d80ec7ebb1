"""Fixtures for pytest. Beside the package and not in it: pytest loads this before it has settings, or anything to test.

Nothing of Django, Celery or ``async_signals`` is loaded before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from async_signals.testing import CapturedSignals, LiveWorker


@pytest.fixture
def captured_signals() -> Iterator[CapturedSignals]:
    """What the test sends, instead of sending it: ``async_signals.testing.capture_signals()`` around the test."""
    from async_signals.testing import capture_signals

    with capture_signals() as captured:
        yield captured


@pytest.fixture
def muted_signals() -> Iterator[None]:
    """No signal goes anywhere, and none is captured: ``async_signals.testing.mute()`` around the test."""
    from async_signals.testing import mute

    with mute():
        yield


@pytest.fixture
def signals_worker() -> Iterator[LiveWorker]:
    """A worker in this process, on a broker of its own: ``async_signals.testing.live_worker()`` around the test.

    Receivers see what is committed: mark the test with ``@pytest.mark.django_db(transaction=True)``.
    """
    from async_signals.testing import live_worker

    with live_worker() as worker:
        yield worker
