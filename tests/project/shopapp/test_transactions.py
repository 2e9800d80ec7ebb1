"""Tests as a user of the project writes them; the test house runs them by `manage.py test` and by pytest."""

from django.db import transaction
from django.test import TestCase, TransactionTestCase

from async_signals import flush
from async_signals.testing import capture_signals
from proj.looking import waiting
from shopapp.models import Order
from shopapp.signals import my_signal, order_placed


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


class WithCaptures(TestCase):
    """Django's own ``captureOnCommitCallbacks`` means for signals what it means for any hook."""

    def setUp(self) -> None:
        with transaction.atomic():
            my_signal.send(None, number=0)
        self.before = waiting()

    def arrived(self) -> int:
        return waiting() - self.before

    def test_what_was_sent_before_a_capture_stays_where_it_is(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
            my_signal.send(None, number=1)
        self.assertEqual((len(callbacks), self.arrived()), (1, 1))

    def test_one_capture_after_another(self) -> None:
        for number in (1, 2):
            with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
                my_signal.send(None, number=number)
            self.assertEqual(self.arrived(), number)

    def test_two_captures_in_one_block(self) -> None:
        with transaction.atomic():
            for number in (1, 2):
                with self.captureOnCommitCallbacks(execute=True):
                    my_signal.send(None, number=number)
                self.assertEqual(self.arrived(), number)

    def test_callbacks_that_are_run_by_hand(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks, transaction.atomic():
            for number in range(3):
                my_signal.send(None, number=number)
        self.assertEqual((len(callbacks), self.arrived()), (3, 0))
        callbacks[2]()
        self.assertEqual(self.arrived(), 1)
        for callback in callbacks[:2]:
            callback()
        flush()  # the third has run, so that nobody knew which one would be the last
        self.assertEqual(self.arrived(), 3)

    def test_a_capture_of_signals_follows_the_commit(self) -> None:
        with capture_signals() as sent:
            with transaction.atomic():
                my_signal.send(None, number=1)
            self.assertEqual(sent, [])
            with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
                my_signal.send(None, number=2)
        self.assertEqual([each.kwargs for each in sent], [{"number": 2}])
        self.assertEqual(self.arrived(), 0)


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

    def test_durable_and_nested_blocks(self) -> None:
        with transaction.atomic(durable=True):
            order_placed.send(Order, order_id=1)
            with transaction.atomic():
                order_placed.send(Order, order_id=2)
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                order_placed.send(Order, order_id=3)
                raise ZeroDivisionError
            self.assertEqual(self.arrived(), 0)
        self.assertEqual(self.arrived(), 2)

    def test_a_capture_of_signals_forgets_what_is_rolled_back(self) -> None:
        with capture_signals() as sent:
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                order_placed.send(Order, order_id=1)
                raise ZeroDivisionError
            with transaction.atomic():
                order_placed.send(Order, order_id=2)
        self.assertEqual([each.kwargs for each in sent], [{"order_id": 2}])
