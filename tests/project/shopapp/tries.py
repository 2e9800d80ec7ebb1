"""Receivers that are tried again, and receivers that run once for each message."""

import time
from typing import Any

from django.apps import apps
from django.dispatch import receiver

from async_signals import current_delivery
from shopapp import signals
from shopapp.effects import record

# Some tests are of projects without the app, and once=True needs it.
INSTALLED = apps.is_installed("async_signals")


def note(name: str, sender: Any) -> int:
    """Records that a receiver runs, and returns which try it is."""
    delivery = current_delivery()
    assert delivery is not None
    record(name, sender, id=delivery.id, attempt=delivery.attempt, at=time.time())
    return delivery.attempt


@receiver(signals.tried)
def before_the_tries(sender: Any, **kwargs: Any) -> None:
    # What a receiver does to its arguments is its own affair, and not that of the next try.
    kwargs.get("what", []).append("changed")
    note("before_the_tries", sender)


@receiver(signals.tried, retry={"max": 2, "base": 0.4, "jitter": False})
def tried_in_vain(sender: Any, **kwargs: Any) -> None:
    attempt = note("tried_in_vain", sender)
    raise ConnectionError(f"refused in try {attempt}", kwargs.get("what"))


@receiver(signals.tried)
def after_the_tries(sender: Any, **kwargs: Any) -> None:
    note("after_the_tries", sender)


@receiver(signals.tried_by_default)
def second_time_lucky(sender: Any, **kwargs: Any) -> None:
    if note("second_time_lucky", sender) == 1:
        raise ConnectionError("not yet")


@receiver(signals.tried_by_default, retry=False)
def never_again(sender: Any, **kwargs: Any) -> None:
    note("never_again", sender)
    raise ConnectionError("once is enough")


@receiver(signals.tried_by_default, retry={"max": 3, "base": 0.1, "on": ConnectionError}, dispatch_uid="picky")
async def worth_no_try(sender: Any, **kwargs: Any) -> None:
    note("worth_no_try", sender)
    raise ValueError("it would fail again")


@receiver(signals.kept_once, once=INSTALLED)
def writes_once(sender: Any, **kwargs: Any) -> None:
    from shopapp.models import Order

    Order.objects.create(reference="written once")
    if note("writes_once", sender) == 1 and kwargs.get("failing"):
        raise ConnectionError("what was written goes with it")


@receiver(signals.kept_once, once=INSTALLED)
async def writes_once_too(sender: Any, **kwargs: Any) -> None:
    from shopapp.models import Order

    await Order.objects.acreate(reference="written once too")
    note("writes_once_too", sender)
