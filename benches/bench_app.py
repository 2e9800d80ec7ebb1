"""The project that the worker benchmarks run: one Celery app, one signal, one trivial receiver.

``BENCH_BROKER`` is its broker, ``BENCH_STAMPS`` a file that the timed signal's receiver writes its time to.
"""

from __future__ import annotations

import os
import time
from typing import Any

import django
from celery import Celery
from django.conf import settings

settings.configure(USE_TZ=True, ASYNC_SIGNALS={"buffer_size": 500_000, "publish_timeout": 60})
django.setup()

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.set_default()
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)

from async_signals import AsyncSignal  # noqa: E402

counted = AsyncSignal(name="bench.counted", queue="bench", durability="background")
timed = AsyncSignal(name="bench.timed", queue="bench")
stamps = os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def count(sender: Any, **named: Any) -> None:
    """Does nothing, as fast as Python can."""


def stamp(sender: Any, **named: Any) -> None:
    """Says when it was called."""
    os.write(stamps, b"%d\n" % time.monotonic_ns())


counted.connect(count)
timed.connect(stamp)
