"""The two ends of the way to the warehouse and back."""

import os
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.dispatch import receiver

from async_signals import current_delivery
from shop.models import Order
from shop.signals import order_placed

from .models import Parcel
from .signals import parcel_packed


@receiver(order_placed, retry={"max": 5})
def tell_the_warehouse(sender: type[Order], order: Order, total: Decimal, placed_at: datetime, **kwargs: Any) -> None:
    """Send the signal once more, on the warehouse's own queue.

    One message has one reader: a second program that wants to hear of orders gets a message of its own.
    """
    elsewhere = order_placed.options(queue=settings.WAREHOUSE_QUEUE)
    elsewhere.send(sender=sender, order=order, total=total, placed_at=placed_at)


@receiver(parcel_packed)
def keep_parcel(
    sender: str, order: Order, insured_for: Decimal, packed_at: datetime, packed_by: int, **kwargs: Any
) -> None:
    """Write down what the warehouse says. The order has come back as the row that it is."""
    delivery = current_delivery()
    Parcel.objects.get_or_create(
        order=order,
        defaults={
            "insured_for": insured_for,
            "packed_at": packed_at,
            "said_by": sender,
            "packed_by": packed_by,
            "message": delivery.id,
            "queue": delivery.queue or "",
            "written_by": os.getpid(),
        },
    )
