"""Measures what the test kit adds to a test's own time: prints one JSON object.

A signal that is captured and run, with the same receiver beside a plain ``Signal.send``, in turns.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import django
from celery import Celery
from django.conf import settings
from django.dispatch import Signal

ROUNDS, CALLS = 9, 200
ARGUMENTS = {"order_id": 5, "email": "ada@example.org", "lines": [{"sku": "tea", "amount": 2}] * 10}

settings.configure(USE_TZ=True, DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()

app = Celery("bench", broker="redis://localhost:1/0")
app.set_default()

from async_signals import AsyncSignal  # noqa: E402
from async_signals.testing import capture_signals  # noqa: E402

plain = Signal()
captured = AsyncSignal(name="bench.captured")


def receiver(**named: Any) -> None:
    """Does nothing."""


plain.connect(receiver)
captured.connect(receiver)


def send() -> None:
    """What Django's own signal takes."""
    plain.send(None, **ARGUMENTS)


def capture_and_run() -> None:
    """A test's three lines."""
    with capture_signals() as sent:
        captured.send(None, **ARGUMENTS)
    sent.assert_sent(captured, order_id=5)
    sent.run()


def p50(call: Callable[[], None]) -> float:
    """The median time of a call, in milliseconds."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e6


def main() -> None:
    """Takes turns, and prints the medians of all rounds."""
    rounds = [(p50(send), p50(capture_and_run)) for _ in range(ROUNDS)]
    beside, ours = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(json.dumps({"plain_ms": beside, "captured_ms": ours, "added_ms": ours - beside}))


main()
