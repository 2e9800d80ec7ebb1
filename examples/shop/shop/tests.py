"""The shop's tests: what is sent, what receivers make of it, and once all of it through a worker."""

from decimal import Decimal

from django.db import transaction
from django.test import TestCase, TransactionTestCase
from django.urls import reverse

from async_signals.testing import SignalsTestMixin, live_worker

from .checkout import place_order
from .models import Email, Invoice, Order, Product, Shipment
from .receivers import PrinterJammed
from .signals import order_placed, payment_taken, stock_low


def some_tea(**fields: object) -> Product:
    """A product of its own for each test."""
    return Product.objects.create(**{"name": "Some tea", "icon": "tea", "price": Decimal("4.50"), "stock": 20} | fields)


class PlacingAnOrder(SignalsTestMixin, TestCase):
    """No broker and no worker: signals are captured, and run where a test asks for it."""

    def place(self, jam_printer: bool = False, **fields: object) -> Order:
        """An order of two, with the commit that a TestCase never makes."""
        quantities = {some_tea(**fields): 2}
        with self.captureOnCommitCallbacks(execute=True):
            return place_order(customer="Ada", email="ada@example.org", quantities=quantities, jam_printer=jam_printer)

    def test_it_tells_the_house(self) -> None:
        order = self.place()
        self.assertSignalSent(order_placed, sender=Order, times=1, order=order, total=Decimal("9.00"))
        self.assertSignalSent(payment_taken, order=order, amount=Decimal("9.00"))

    def test_nobody_hears_of_an_order_that_is_undone(self) -> None:
        with (
            self.assertRaises(ZeroDivisionError),
            self.captureOnCommitCallbacks(execute=True),
            transaction.atomic(),
        ):
            place_order(customer="Ada", email="ada@example.org", quantities={some_tea(): 2})
            raise ZeroDivisionError
        self.signals.assert_nothing_sent()

    def test_the_customer_gets_an_invoice_a_letter_and_a_courier(self) -> None:
        order = self.place()
        self.drainSignals()
        order.refresh_from_db()
        self.assertIsNotNone(order.paid_at)
        self.assertEqual(Invoice.objects.get().total, Decimal("9.00"))
        self.assertEqual(Email.objects.get().to, "ada@example.org")
        self.assertEqual(Shipment.objects.get().courier, "Bicycle")

    def test_a_shelf_that_is_nearly_empty_is_filled_again(self) -> None:
        self.place(stock=5)
        self.runSignals()
        self.assertSignalSent(stock_low, left=3)
        self.drainSignals()
        self.assertTrue(Email.objects.filter(to="supplier@steep.example", subject__contains="3 left").exists())

    def test_a_shelf_that_is_full_is_not(self) -> None:
        self.place(stock=50)
        self.drainSignals()
        self.assertSignalNotSent(stock_low)

    def test_a_printer_that_jams_stops_nobody_else(self) -> None:
        order = self.place(jam_printer=True)
        with self.assertRaises(PrinterJammed):
            self.drainSignals()
        self.assertTrue(Invoice.objects.filter(order=order).exists())
        self.assertTrue(Shipment.objects.filter(order=order).exists())


class ThroughAWorker(TransactionTestCase):
    """A broker and a worker in this process: what a customer sees in the end."""

    def test_the_orders_page_says_that_all_is_done(self) -> None:
        product = some_tea()
        with live_worker() as worker:
            ordered = self.client.post(
                reverse("shop:new_order"),
                {"customer": "Ada", "email": "ada@example.org", f"product_{product.pk}": 1},
            )
            worker.wait()
        account = self.client.get(ordered.url.rstrip("/") + ".json").json()
        self.assertTrue(account["paid"])
        self.assertEqual({run["receiver"] for run in account["runs"]}, set(account["expected"]))
