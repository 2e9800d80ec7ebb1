"""Placing an order: the one place from which the shop's signals are sent."""

from collections.abc import Mapping
from decimal import Decimal

from django.db import transaction

from .models import Order, OrderLine, Product
from .signals import basket_priced, order_placed, payment_taken


def place_order(*, customer: str, email: str, quantities: Mapping[Product, int], jam_printer: bool = False) -> Order:
    """Write the order down and tell the house.

    Both asynchronous signals are published when the transaction has committed; were it
    rolled back, nobody would hear of an order that is not there.
    """
    with transaction.atomic():
        order = Order.objects.create(customer=customer, email=email, jam_printer=jam_printer)
        OrderLine.objects.bulk_create(
            OrderLine(order=order, product=product, quantity=quantity, unit_price=product.price)
            for product, quantity in quantities.items()
        )

        answers = basket_priced.send(sender=Order, order=order)
        order.discount = sum((discount for _, discount in answers), Decimal(0))
        order.total = sum((line.price for line in order.lines.all()), -order.discount)
        order.save(update_fields=["discount", "total"])

        payment_taken.send(sender=Order, order=order, amount=order.total)
        order_placed.send(sender=Order, order=order, total=order.total, placed_at=order.placed_at)
    return order
