"""Measures sends side by side with Celery's own ``apply_async`` of the same three small arguments.

Run as ``publishing.py BROKER_URL``; prints one JSON object. The two take turns
in short rounds, so that a machine whose speed drifts treats both alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import django
from celery import Celery
from django.conf import settings

ROUNDS = 15
ARGUMENTS = {"order_id": 5, "email": "ada@example.org", "express": True}


def build(url: str) -> tuple[Celery, dict[str, Callable[[], Any]]]:
    """The app and what is measured."""
    settings.configure(USE_TZ=True, ASYNC_SIGNALS={"buffer_size": 100_000, "publish_timeout": 30})
    django.setup()
    app = Celery("bench", broker=url, set_as_current=True)
    app.set_default()
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    confirming = Celery("confirming", broker=url, set_as_current=False)
    confirming.conf.update(task_ignore_result=True, broker_transport_options={"confirm_publish": True})

    from async_signals import AsyncSignal

    signal = AsyncSignal(name="bench.order_placed")
    buffered = AsyncSignal(name="bench.order_buffered", durability="background")

    def task(sender: Any, **named: Any) -> None: ...

    plain = app.task(name="bench.plain", ignore_result=True)(task)
    confirmed = confirming.task(name="bench.confirmed", ignore_result=True)(task)
    celery_confirmed = confirmed if url.startswith("amqp") else plain
    return app, {
        "celery": lambda: plain.apply_async((None,), ARGUMENTS),
        "celery_confirmed": lambda: celery_confirmed.apply_async((None,), ARGUMENTS),
        "background": lambda: buffered.send(None, **ARGUMENTS),
        "confirmed": lambda: signal.send(None, **ARGUMENTS),
    }


def p50(call: Callable[[], Any], count: int) -> float:
    """The median time of a call, in microseconds."""
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def rate(call: Callable[[], Any], threads: int, each: int) -> float:
    """Calls a second over several threads."""
    begin = threading.Barrier(threads + 1)

    def work() -> None:
        begin.wait()
        for _ in range(each):
            call()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * each / (time.perf_counter() - start)


def main() -> None:
    """Measures and prints."""
    app, calls = build(sys.argv[1])
    from async_signals import flush

    for call in calls.values():
        for _ in range(50):
            call()
    flush(30)
    latencies: dict[str, list[float]] = {name: [] for name in calls}
    rates: dict[str, list[float]] = {"celery_confirmed": [], "confirmed": []}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            latencies[name].append(p50(call, 400 if name == "background" else 60))
            flush(30)
    for _ in range(5):
        for name, figures in rates.items():
            figures.append(rate(calls[name], 8, 400 if name == "confirmed" else 40))
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("celery")
    json.dump({"p50_us": latencies, "per_second": rates}, sys.stdout)


if __name__ == "__main__":
    main()
