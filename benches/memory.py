"""Prints what an idle publisher adds to the memory of a process that has Django and Celery."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import django
from celery import Celery
from django.conf import settings


def resident() -> int:
    """This process' resident memory, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    """Measures and prints."""
    settings.configure(USE_TZ=True)
    django.setup()
    app = Celery("bench", broker="redis://127.0.0.1:1/0")
    app.set_default()
    # What Celery's own publishing would have loaded and made.
    app.finalize()
    app.amqp.router.route({}, "bench.task")
    app.connection_for_write()
    before = resident()

    from async_signals import AsyncSignal, SignalNotSent, flush

    signal = AsyncSignal(name="bench.idle", durability="background")
    signal.send(None, order_id=5)
    with suppress(SignalNotSent):  # Nobody listens there: the publisher is up all the same.
        flush(0.5)
    json.dump({"publisher_bytes": resident() - before}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # Without waiting for what cannot be flushed.


if __name__ == "__main__":
    main()
