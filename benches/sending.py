"""Measures what a send costs by each of its ways: run as ``sending.py BROKER_URL``; prints one JSON object.

What belongs together takes turns in short rounds, so that a machine whose speed drifts treats all alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import django
from celery import Celery, signals
from django.conf import settings

ROUNDS = 9
ARGUMENTS = {"order_id": 5, "email": "ada@example.org", "express": True}

settings.configure(
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ASYNC_SIGNALS={"buffer_size": 100_000, "publish_timeout": 30},
)
django.setup()

from django.db import transaction  # noqa: E402

app = Celery("bench", broker=sys.argv[1])
app.set_default()
app.conf.update(task_ignore_result=True)
if sys.argv[1].startswith("amqp"):
    app.conf.update(broker_transport_options={"confirm_publish": True})  # so that both wait for the broker's word

from async_signals import AsyncSignal  # noqa: E402

signal = AsyncSignal(name="bench.order_placed")


@app.task(name="bench.plain", ignore_result=True)
def plain(sender: Any, **named: Any) -> None:
    """A task like the signal's."""


def route(*_: Any, **__: Any) -> dict[str, str]:
    """A router that is a function."""
    return {"queue": "celery"}


def p50(call: Callable[[], Any], count: int = 100) -> float:
    """The median time of a call, in microseconds."""
    call()
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def send() -> None:
    signal.send(None, **ARGUMENTS)


def send_in_background() -> None:
    signal.options(durability="background").send(None, **ARGUMENTS)


@contextlib.contextmanager
def changed(**conf: Any) -> Iterator[None]:
    """Celery's settings, as long as the block runs."""
    before = {name: getattr(app.conf, name) for name in conf}
    app.conf.update(**conf)
    yield
    app.conf.update(**before)


def listened() -> float:
    """A send that somebody who listens to Celery's signals is told of."""
    signals.before_task_publish.connect(hear)
    try:
        return p50(send)
    finally:
        signals.before_task_publish.disconnect(hear)


def celery_listened() -> float:
    signals.before_task_publish.connect(hear)
    try:
        return p50(lambda: plain.apply_async((None,), ARGUMENTS))
    finally:
        signals.before_task_publish.disconnect(hear)


def hear(**_: Any) -> None:
    """Somebody who wants to know."""


def routed() -> float:
    with changed(task_routes=(route,)):
        return p50(send)


def routed_in_background() -> float:
    with changed(task_routes=(route,)):
        return p50(send_in_background)


def with_events() -> float:
    with changed(task_send_sent_event=True):
        return p50(send)


def block(savepoints: bool) -> float:
    """One commit of 1,000 sends, in milliseconds."""
    with transaction.atomic():
        for _ in range(1000):
            with transaction.atomic() if savepoints else contextlib.nullcontext():
                send()
        start = time.perf_counter()
    return (time.perf_counter() - start) * 1000


def imported() -> float:
    """The CPU time of importing the package beyond Django and Celery, in milliseconds, once its bytecode is there."""
    code = (
        "import time, django.db.models, django.conf, django.dispatch, celery, celery.signals, kombu; "
        "celery.Celery, celery.Task, celery.shared_task, kombu.Producer; "
        "start = time.process_time(); import async_signals; print((time.process_time() - start) * 1000)"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)


def main() -> None:
    """Measures and prints."""
    rows: dict[str, Callable[[], float]] = {
        "send": lambda: p50(send),
        "send, events on": with_events,
        "send, callable router": routed,
        "send, callable router, background": routed_in_background,
        "send, listener": listened,
        "apply_async": lambda: p50(lambda: plain.apply_async((None,), ARGUMENTS)),
        "apply_async, listener": celery_listened,
        "commit of 1,000 sends": lambda: block(savepoints=False),
        "commit of 1,000 savepoints": lambda: block(savepoints=True),
        "import": imported,
    }
    figures: dict[str, list[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        for _ in range(ROUNDS):
            for name, measure in rows.items():
                figures[name].append(measure())
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("celery")
    json.dump({name: statistics.median(values) for name, values in figures.items()}, sys.stdout)


if __name__ == "__main__":
    main()
