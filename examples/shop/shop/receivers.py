"""What happens when something happens.

Any of these may run twice for one message: a worker that dies after a receiver and
before it has acknowledged is given the message again. So each asks the database
whether its work is done already, and that is all it takes.
"""

import asyncio
import time
from datetime import datetime
from decimal import Decimal
from functools import cache
from io import FileIO
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.dispatch import receiver
from django.utils import timezone

from .models import Email, Invoice, Order, Product, Shipment, StockMovement
from .recorded import recorded
from .signals import basket_priced, order_placed, page_viewed, payment_taken, stock_low


@receiver(basket_priced)
@recorded
def three_of_a_kind(sender: type[Order], order: Order, **kwargs: Any) -> Decimal:
    """Ten per cent off whatever is bought three times. Runs in the request: it answers."""
    dear = sum((line.price for line in order.lines.all() if line.quantity >= 3), Decimal(0))
    return (dear / 10).quantize(Decimal("0.01"))


@receiver(order_placed)
@recorded
def send_confirmation(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Write to the customer, through a mail server that takes its time."""
    time.sleep(0.2)
    Email.objects.get_or_create(order=order, defaults={"to": order.email, "subject": f"Thank you, {order.customer}"})


@receiver(order_placed)
@recorded
def write_invoice(sender: type[Order], order: Order, total: Decimal, placed_at: datetime, **kwargs: Any) -> None:
    """Write the invoice from what crossed the wire: a ``Decimal`` and a ``datetime``."""
    Invoice.objects.get_or_create(
        order=order,
        defaults={"number": f"{placed_at:%Y}-{order.pk:04}", "total": total, "dated": placed_at},
    )


@receiver(order_placed)
@recorded
def take_stock(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Take the goods off the shelf, and say so when a shelf is nearly empty."""
    for line in order.lines.select_related("product"):
        with transaction.atomic():
            _, taken_now = StockMovement.objects.get_or_create(
                order=order, product=line.product, defaults={"quantity": -line.quantity}
            )
            if not taken_now:
                continue
            product = line.product
            Product.objects.filter(pk=product.pk).update(stock=F("stock") - line.quantity)
            product.refresh_from_db()
            if product.stock <= product.reorder_at:
                # Published when this transaction has committed, from the worker.
                stock_low.send(sender=Product, product=product, left=product.stock)


@receiver(order_placed)
@recorded
def print_label(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Print the parcel's label, unless somebody asked for a jam."""
    if order.jam_printer:
        raise PrinterJammed("the label printer has eaten the label")


@receiver(order_placed)
@recorded
async def book_courier(sender: type[Order], order: Order, **kwargs: Any) -> None:
    """Ask every courier at once and take the cheapest."""
    weight = sum([line.quantity async for line in order.lines.all()])
    quotes = await asyncio.gather(
        _quote("Bicycle", Decimal("2.80"), weight),
        _quote("Van", Decimal("5.90"), 1),
        _quote("Pigeon", Decimal("1.10"), weight * 4),
    )
    price, courier = min(quotes)
    await Shipment.objects.aget_or_create(order=order, defaults={"courier": courier, "price": price})


@receiver(payment_taken)
@recorded
def mark_paid(sender: type[Order], order: Order, amount: Decimal, **kwargs: Any) -> None:
    """Note that the money is here."""
    Order.objects.filter(pk=order.pk, total=amount, paid_at=None).update(paid_at=timezone.now())


@receiver(stock_low)
@recorded
def reorder(sender: type[Product], product: Product, left: int, **kwargs: Any) -> None:
    """Ask the supplier for more."""
    Email.objects.get_or_create(to="supplier@steep.example", subject=f"Please send more {product.name}: {left} left")


@receiver(page_viewed)
def count_page_view(sender: None, path: str, **kwargs: Any) -> None:
    """Make a mark: a byte for each view is all that is kept."""
    _page_views().write(b".")


class PrinterJammed(Exception):
    """The printer's answer to every question."""


@cache
def _page_views() -> FileIO:
    return FileIO(settings.DATA_DIR / "page_views", "a")


async def _quote(courier: str, per_parcel: Decimal, parcels: int) -> tuple[Decimal, str]:
    await asyncio.sleep(0.05)  # a courier's computer, far away
    return per_parcel * parcels, courier


#: The receivers of every order, in the order in which they run: what the pages wait for.
OF_AN_ORDER = {
    "basket_priced": (three_of_a_kind,),
    "payment_taken": (mark_paid,),
    "order_placed": (send_confirmation, write_invoice, take_stock, print_label, book_courier),
}
