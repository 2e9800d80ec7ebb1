"""Receivers that run once for each message, however often it comes. Installed as a Django app."""

from typing import Any

from django.dispatch import receiver

from checker import signals
from checker.receivers import note, wait_at_the_gate


@receiver(signals.single, once=True)
def only_once(token: str, **kwargs: Any) -> None:
    note("only_once", token)


@receiver(signals.single)
def gate_after_once(token: str, **kwargs: Any) -> None:
    note("gate_after_once", token, "began")
    wait_at_the_gate()
    note("gate_after_once", token)
