"""The models of the shop, and its receivers: modules of models are imported early in every process."""

import functools
import os
from typing import Any

from django.db import models
from django.dispatch import receiver

from async_signals import current_delivery
from async_signals import signals as async_signals
from shopapp import at_work, signals, tries  # noqa: F401 - connects more receivers
from shopapp.effects import record


class Order(models.Model):
    reference = models.CharField(max_length=40, default="")

    def __str__(self) -> str:
        return f"order {self.pk}"


# By hand …
def my_callback(sender: Any, **kwargs: Any) -> None:
    record("my_callback", sender, **kwargs)


async_signals.request_finished.connect(my_callback)


# … and by the decorator that Django has for it.
@receiver(async_signals.request_finished)
def decorated(sender: Any, **kwargs: Any) -> None:
    record("decorated", sender, **kwargs)


@receiver(async_signals.request_started)
def started(sender: Any, **kwargs: Any) -> None:
    record("started", sender, **kwargs)


@receiver(signals.my_signal)
def mine(sender: Any, **kwargs: Any) -> None:
    record("mine", sender, **kwargs)


@receiver(signals.request_started)
def with_arguments(sender: Any, host: str, path: str, **kwargs: Any) -> None:
    record("with_arguments", sender, host=host, path=path, **kwargs)


@receiver(signals.routed_signal)
def routed_first(sender: Any, **kwargs: Any) -> None:
    record("routed_first", sender, **kwargs)


@receiver(signals.routed_signal)
def routed_second(sender: Any, **kwargs: Any) -> None:
    record("routed_second", sender, **kwargs)


@receiver(signals.order_placed)
def ordered(sender: Any, order_id: int, **kwargs: Any) -> None:
    record("ordered", sender, order_id=order_id, **kwargs)


@receiver(signals.order_placed, sender=Order)
def ordered_by_class(sender: Any, order_id: int, **kwargs: Any) -> None:
    record("ordered_by_class", sender, order_id=order_id, **kwargs)


@receiver(signals.synchronous)
def at_once(sender: Any, **kwargs: Any) -> None:
    record("at_once", sender, **kwargs)


# The documentation's own words.
@receiver(async_signals.request_finished)
def printing(sender: Any, **kwargs: Any) -> None:
    print("Request finished!")


@receiver(signals.chained)
def sends_another(sender: Any, **kwargs: Any) -> None:
    signals.unread.send(sender)
    record("sends_another", sender, **kwargs)


@receiver(signals.chained_in_background)
def sends_in_background(sender: Any, **kwargs: Any) -> None:
    for number in range(50):
        signals.unread.options(durability="background").send(sender, number=number)
    record("sends_in_background", sender, **kwargs)


@receiver(signals.troubled)
def before_the_trouble(sender: Any, **kwargs: Any) -> None:
    delivery = current_delivery()
    assert delivery is not None
    told = {"id": delivery.id, "named": delivery.signal, "attempt": delivery.attempt, "queue": delivery.queue}
    record("before_the_trouble", sender, **told, dated=delivery.sent_at is not None)


@receiver(signals.troubled)
def in_trouble(sender: Any, **kwargs: Any) -> None:
    record("in_trouble", sender)
    raise RuntimeError("the printer is on fire")


def _partially(sender: Any, what: str, **kwargs: Any) -> None:
    raise LookupError(what)


# Connected strongly: nothing else holds a partial.
signals.troubled.connect(functools.partial(_partially, what="no paper"), weak=False)


@receiver(signals.troubled)
async def after_the_trouble(sender: Any, **kwargs: Any) -> None:
    record("after_the_trouble", sender)


@receiver(signals.poisonous)
def kills_its_process(sender: Any, **kwargs: Any) -> None:
    record("kills_its_process", sender)
    os._exit(1)


@receiver((signals.about_a_row, signals.skipping, signals.without_rows))
def looks_at_the_row(sender: Any, order: Order | None, **kwargs: Any) -> None:
    record("looks_at_the_row", sender, reference=order and order.reference)


@receiver(signals.waiting)
def waits(sender: Any, path: str, **kwargs: Any) -> None:
    record("waits", sender, path=path)
    with open(path) as pipe:
        pipe.read()
