"""Receivers that tell what they run in, and that can be held up."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from django.db import connection
from django.dispatch import receiver

from shopapp import signals
from shopapp.effects import record


@receiver(signals.held_up)
def waits_at_the_gate(sender: Any, number: int = 0, **kwargs: Any) -> None:
    """Until the test opens the gate, which is a named pipe."""
    record("waits_at_the_gate", sender, number=number, thread=threading.current_thread().name)
    # The name is read by nobody else: `open` waits until somebody writes.
    with open(Path(os.environ["PROJECT_FOLDER"]) / "gate", "rb", buffering=0) as gate:
        gate.read(1)
    record("passed", sender, number=number)


@receiver(signals.limited)
def takes_too_long(sender: Any, **kwargs: Any) -> None:
    # Not above: this project is also run without Celery.
    from celery.exceptions import SoftTimeLimitExceeded

    record("takes_too_long", sender)
    try:
        with open(Path(os.environ["PROJECT_FOLDER"]) / "gate", "rb", buffering=0) as gate:
            gate.read(1)
    except SoftTimeLimitExceeded:
        record("was_told", sender)
        raise


@receiver(signals.touching)
def asks_the_database(sender: Any, **kwargs: Any) -> None:
    record("asks_the_database", sender, was_open=connection.connection is not None)
    connection.ensure_connection()


@receiver(signals.awaited)
async def awaits(sender: Any, **kwargs: Any) -> None:
    from shopapp.models import Order

    await asyncio.sleep(0)
    order = await Order.objects.acreate(reference="awaited")
    loop = asyncio.get_running_loop()
    record("awaits", sender, loop=id(loop), created=order.pk is not None)


@receiver(signals.awaited)
def comes_before(sender: Any, **kwargs: Any) -> None:
    record("comes_before", sender, was_open=connection.connection is not None)


@receiver(signals.ending)
def ends_its_process(sender: Any, **kwargs: Any) -> None:
    record("ends_its_process", sender)
    sys.exit(3)


@receiver(signals.endless)
def never_returns(sender: Any, **kwargs: Any) -> None:
    record("never_returns", sender)
    while True:
        pass
