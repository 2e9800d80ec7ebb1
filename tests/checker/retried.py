"""Receivers that are called again when they fail. Installed as a Django app."""

from typing import Any

from django.dispatch import receiver

from async_signals import current_delivery
from checker import signals
from checker.receivers import note

#: How often, and after how many seconds at first.
RETRY = {"max": 2, "base": 0.1}


@receiver(signals.retried)
def succeeds_at_once(token: str, **kwargs: Any) -> None:
    note("succeeds_at_once", token)


@receiver(signals.retried, retry=RETRY)
def succeeds_at_the_third_try(token: str, **kwargs: Any) -> None:
    delivery = current_delivery()
    assert delivery is not None
    if delivery.attempt < 3:
        note("succeeds_at_the_third_try", token, "began")
        raise RuntimeError("not yet")
    note("succeeds_at_the_third_try", token)


@receiver(signals.retried, retry=RETRY)
def never_succeeds(token: str, **kwargs: Any) -> None:
    note("never_succeeds", token, "began")
    raise RuntimeError("never")
