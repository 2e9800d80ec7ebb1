"""The receivers of the checker: each writes down what it did, and for whom. Installed as a Django app."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from async_signals import current_delivery
from checker import signals
from checker.journal import Journal
from checker.sending import send

FOLDER = Path(os.environ["PROJECT_FOLDER"])
#: A named pipe that receivers wait at for somebody to open it, while it is there.
GATE = FOLDER / "gate"

_journal = Journal(FOLDER / "effects.jsonl")
_sends = Journal(FOLDER / "sends.jsonl")


def note(receiver: str, token: str, event: str = "done", **more: Any) -> None:
    """Writes down what a receiver did for the message that it was called for."""
    delivery = current_delivery()
    _journal.append(
        receiver=receiver,
        token=token,
        event=event,
        id=delivery and delivery.id,
        attempt=delivery and delivery.attempt,
        worker=os.environ.get("CHECKER_WORKER", ""),
        pid=os.getpid(),
        time=time.time(),
        **more,
    )


def wait_at_the_gate() -> None:
    """Waits until the gate is opened; nothing is waited for where there is none."""
    try:
        GATE.open("rb").close()  # until somebody opens the other end
    except FileNotFoundError:
        return


@receiver(signals.heard)
def first(token: str, **kwargs: Any) -> None:
    note("first", token)


@receiver(signals.heard)
def second(token: str, **kwargs: Any) -> None:
    note("second", token)


@receiver(signals.gated)
def before_the_gate(token: str, **kwargs: Any) -> None:
    note("before_the_gate", token)


@receiver(signals.gated)
def at_the_gate(token: str, **kwargs: Any) -> None:
    note("at_the_gate", token, "began")
    wait_at_the_gate()
    note("at_the_gate", token)


@receiver(signals.slow)
def takes_its_time(token: str, seconds: float, **kwargs: Any) -> None:
    note("takes_its_time", token, "began")
    time.sleep(seconds)
    note("takes_its_time", token)


@receiver(signals.deadly)
def kills_its_process(token: str, **kwargs: Any) -> None:
    note("kills_its_process", token, "began")
    os._exit(1)


@receiver(signals.failing)
def before_the_failure(token: str, **kwargs: Any) -> None:
    note("before_the_failure", token)


@receiver(signals.failing)
def fails(token: str, **kwargs: Any) -> None:
    note("fails", token, "began")
    raise RuntimeError("the printer is on fire")


@receiver(signals.failing)
def after_the_failure(token: str, **kwargs: Any) -> None:
    note("after_the_failure", token)


@receiver(signals.awaited)
async def awaiting(token: str, **kwargs: Any) -> None:
    await asyncio.sleep(0)
    note("awaiting", token)


@receiver(signals.awaited)
async def awaiting_too(token: str, **kwargs: Any) -> None:
    await asyncio.sleep(0)
    note("awaiting_too", token)


@receiver(signals.told)
def asks(token: str, **kwargs: Any) -> None:
    delivery = current_delivery()
    assert delivery is not None
    sent_at = delivery.sent_at and delivery.sent_at.timestamp()
    note("asks", token, signal=delivery.signal, queue=delivery.queue, sent_at=sent_at)


@receiver(signals.chained)
def sends_on(token: str, **kwargs: Any) -> None:
    send(signals.heard, "heard", _sends)
    note("sends_on", token)
