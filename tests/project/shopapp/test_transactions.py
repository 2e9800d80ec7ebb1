"""Tests as a user of the project writes them; the test house runs them by `manage.py test` and by pytest."""

from django.db import transaction
from django.test import TestCase, TransactionTestCase

from proj.looking import waiting
from shopapp.models import Order
from shopapp.signals import order_placed


class InATestCase(TestCase):
    """The transaction that TestCase wraps around a test is not the program's."""

    databases = ("default", "other")

    def setUp(self) -> None:
        self.before = waiting()

    def arrived(self) -> int:
        return waiting() - self.before

    def test_without_a_transaction_it_is_sent_at_once(self) -> None:
        order = Order.objects.create()
        order_placed.send(Order, order_id=order.pk)
        self.assertEqual(self.arrived(), 1)

    def test_in_a_transaction_it_waits_for_a_commit_that_never_comes(self) -> None:
        with transaction.atomic():
            order_placed.send(Order, order_id=1)
        self.assertEqual(self.arrived(), 0)

    def test_captured_callbacks_send_it(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            order_placed.send(Order, order_id=1)
            self.assertEqual(self.arrived(), 0)
        self.assertEqual(self.arrived(), 1)


class InATransactionTestCase(TransactionTestCase):
    """Here transactions are what they are in production."""

    def setUp(self) -> None:
        self.before = waiting()

    def arrived(self) -> int:
        return waiting() - self.before

    def test_commit(self) -> None:
        with transaction.atomic():
            order_placed.send(Order, order_id=1)
            self.assertEqual(self.arrived(), 0)
        self.assertEqual(self.arrived(), 1)

    def test_rollback(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            order_placed.send(Order, order_id=1)
            raise ZeroDivisionError
        self.assertEqual(self.arrived(), 0)
