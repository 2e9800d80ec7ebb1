"""One program of sends and receivers, for Django's own signals and for ours: both must do the same.

``SCENARIOS=django`` makes it one of Django's synchronous signals.
"""

import enum
import os
from typing import Any

from django.dispatch import Signal, receiver

from async_signals import AsyncSignal
from shopapp.effects import record
from shopapp.models import Order

Kind = Signal if os.environ.get("SCENARIOS") == "django" else AsyncSignal

plain = Kind()
# Django's cache cannot hold None, a str or an int, and raises; ours can.
caching = Kind(use_caching=Kind is AsyncSignal)
listed = Kind()
changing = Kind()


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Shop: ...


class Branch(Shop): ...


class Clerk:
    """Its methods are receivers."""

    def greet(self, sender: Any, **kwargs: Any) -> None:
        record("Clerk.greet", sender, **kwargs)

    def __call__(self, sender: Any, **kwargs: Any) -> None:
        record("Clerk", sender, **kwargs)


SENDERS = [None, "web", "shop", 7, 8, Color.RED, Color.GREEN, Shop, Branch, Order]


def for_one(sender: Any) -> Any:
    def only(sender: Any, number: int, **kwargs: Any) -> None:
        record(f"for {wanted}", sender, number=number)

    wanted = sender
    return only


clerk = Clerk()
for signal in (plain, caching):
    for sender in SENDERS:
        signal.connect(for_one(sender), sender=sender, weak=False)
    signal.connect(clerk.greet)
    signal.connect(clerk, sender="web")


@receiver([plain, listed], sender=Shop)
def several(sender: Any, number: int, **kwargs: Any) -> None:
    record("several", sender, number=number)


@receiver(listed)
async def waits(sender: Any, number: int, **kwargs: Any) -> None:
    record("waits", sender, number=number)


@receiver(listed)
def comes_before_what_waits(sender: Any, number: int, **kwargs: Any) -> None:
    record("comes_before_what_waits", sender, number=number)


def once(sender: Any, number: int, **kwargs: Any) -> None:
    record("once", sender, number=number)


def never(sender: Any, number: int, **kwargs: Any) -> None:
    record("never", sender, number=number)


# Twice under one name is once; disconnected is not connected; what nobody holds is gone.
changing.connect(once, dispatch_uid="the one")
changing.connect(never, dispatch_uid="the one")
changing.connect(never, sender=Shop)
assert changing.disconnect(never, sender=Shop)
changing.connect(for_one("nobody"))


def send_all() -> None:
    """Sends everything, numbered."""
    number = 0
    for signal in (plain, caching, listed, changing):
        for sender in [*SENDERS, *SENDERS]:
            number += 1
            signal.send_robust(sender, number=number)
