"""The test kit as a user of the project uses it: what needs a database, transactions, or a worker."""

import asyncio
import threading
from typing import Any

import factory
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from factory.django import mute_signals

from async_signals import AsyncSignal, DeadLettered, current_delivery
from async_signals.references import MissingRow
from async_signals.testing import SignalsTestMixin, capture_signals, live_worker, mute
from proj.celery import app
from proj.looking import waiting
from shopapp.models import Order
from shopapp.signals import about_a_row, my_signal, order_placed, skipping, unheard, without_rows
from shopapp.tasks import add

#: What receivers of these tests have done, in their order.
done: list[Any] = []
noted = AsyncSignal(retry={"max": 2, "base": 0.01})


class Fresh:
    """Receivers of `noted` are a test's own."""

    def setUp(self) -> None:
        super().setUp()
        done.clear()

    def connect(self, receiver: Any, **options: Any) -> Any:
        noted.connect(receiver, **options)
        self.addCleanup(noted.disconnect, receiver)
        return receiver


class Commits(Fresh, TestCase):
    databases = ("default", "other")

    def test_a_capture_makes_the_commit_that_a_test_case_never_makes(self) -> None:
        with capture_signals(commit=True) as sent:
            for alias in ("default", "other"):
                with transaction.atomic(using=alias):
                    my_signal.send(None, alias=alias)
            self.assertEqual(sent, [])
        self.assertEqual({each.kwargs["alias"] for each in sent}, {"default", "other"})

    def test_an_assertion_says_what_waits_for_that_commit(self) -> None:
        with capture_signals() as sent, transaction.atomic():
            my_signal.send(None, number=1)
            with self.assertRaisesRegex(
                AssertionError, "1 more waits for the commit of a transaction that is still open"
            ):
                sent.assert_sent(my_signal)
        with self.assertRaisesRegex(AssertionError, r"1 more waits for a commit .* capture_signals\(commit=True\)"):
            sent.assert_sent(my_signal)
        with self.captureOnCommitCallbacks(execute=True), capture_signals() as sent, transaction.atomic():
            my_signal.send(None, number=2)
        with self.assertRaises(AssertionError) as failed:
            sent.assert_sent(my_signal, number=3)
        self.assertNotIn("waits for", str(failed.exception))  # Django leaves hooks that it has run where they are

    def test_the_moment_of_the_send_is_what_is_recorded(self) -> None:
        order, lines = Order.objects.create(reference="a"), [1]
        with capture_signals(commit=True) as sent, transaction.atomic():
            my_signal.send(None, order=order, lines=lines)
            order.reference = "b"
            lines.append(2)
        [captured] = sent
        self.assertEqual(captured.kwargs, {"order": order, "lines": [1]})
        self.assertEqual((type(captured.kwargs["order"]), captured.kwargs["order"].reference), (Order, "a"))

    def test_hooks_of_receivers_run_once_as_in_a_worker(self) -> None:
        def places(sender: Any, **kwargs: Any) -> None:
            with transaction.atomic():
                transaction.on_commit(lambda: done.append("hook"))
                my_signal.send("from the receiver")

        self.connect(places)
        with self.captureOnCommitCallbacks(execute=True), capture_signals(commit=True) as sent:
            noted.send(None)
            sent.run()
            sent.assert_sent(my_signal, sender="from the receiver", times=1)
        self.assertEqual(done, ["hook"])
        sent.assert_sent(my_signal, times=1)

    def test_a_hook_that_fails_fails_the_test(self) -> None:
        self.connect(lambda **_: transaction.on_commit(lambda: 1 / 0), weak=False, dispatch_uid="fails")
        self.addCleanup(noted.disconnect, dispatch_uid="fails")
        with capture_signals() as sent:
            noted.send(None)
        with self.assertRaises(ZeroDivisionError) as failed:
            sent.run()
        self.assertIn("on_commit", failed.exception.__notes__[0])


class Running(Fresh, TestCase):
    def test_a_receiver_meets_the_row_and_not_the_object(self) -> None:
        order = Order.objects.create(reference="old")
        met = self.connect(lambda order, **_: done.append(order), weak=False)
        with capture_signals() as sent:
            noted.send(Order, order=order)
        Order.objects.update(reference="new")
        [ran] = sent.run()
        self.assertIs(ran.receiver, met)
        self.assertIsNot(done[0], order)
        self.assertEqual(done[0].reference, "new")

    def test_a_row_that_is_gone(self) -> None:
        order = Order.objects.create()
        with capture_signals() as sent:
            for signal in (about_a_row, skipping, without_rows):
                signal.send(None, order=order)
        order.delete()
        runs = sent.run(reraise=False)
        self.assertEqual([each.signal.signal for each in runs], [without_rows])
        self.assertEqual([(each.kind, each.signal) for each in runs.dead_letters], [("MissingRow", sent[0])])
        with self.assertRaisesRegex(MissingRow, "order"):
            runs.raise_errors()

    def test_once_has_one_effect(self) -> None:
        def once(sender: Any, **kwargs: Any) -> str:
            Order.objects.create()
            return "ran"

        self.connect(once, once=True)
        with capture_signals() as sent:
            for _ in range(2):
                noted.options(task_id="5f0f8c1e-2f0a-4c6b-8f7e-0d6c1d3f9a11").send(None)
        self.assertEqual([each.response for each in sent.run()], ["ran", None])
        self.assertEqual(Order.objects.count(), 1)


class WithTheMixin(SignalsTestMixin, TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        order_placed.send(None, order_id=0)
        cls.signals.assert_sent(order_placed, order_id=0)

    def setUp(self) -> None:
        my_signal.send("set up")

    def test_each_test_has_its_own(self) -> None:
        order_placed.send(None, order_id=1)
        self.assertSignalSent(my_signal, sender="set up", times=1)
        self.assertSignalSent(order_placed, order_id=1, times=1)
        self.assertSignalNotSent(order_placed, order_id=0)
        with self.assertRaisesRegex(AssertionError, "order_id: expected 2, but it was 1"):
            self.assertSignalSent(order_placed, order_id=2)
        with self.assertRaisesRegex(AssertionError, "was sent once"):
            self.assertSignalNotSent(order_placed, order_id=1)

    async def test_coroutines(self) -> None:
        await unheard.asend(None, number=1)
        with self.assertRaisesRegex(RuntimeError, "await arun"):
            self.runSignals()
        runs = await self.adrainSignals()
        self.assertEqual(runs.messages, 2)

    def test_the_mixin_goes_first(self) -> None:
        with self.assertRaisesRegex(TypeError, "name SignalsTestMixin before"):
            type("Late", (TestCase, SignalsTestMixin), {})


class WithoutADatabase(SignalsTestMixin, SimpleTestCase):
    def test_it_captures_and_runs(self) -> None:
        unheard.send(None)
        self.assertEqual(self.drainSignals().messages, 1)
        self.assertSignalSent(unheard)


class Muting(Fresh, TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.before = waiting()

    def test_factory_boys_mute_signals(self) -> None:
        """The real one: as a context manager, around a factory, one in another, and with a receiver that comes late."""

        class OrderFactory(factory.django.DjangoModelFactory):
            class Meta:
                model = Order
                skip_postgeneration_save = True

            @factory.post_generation
            def tell(self, create: bool, extracted: Any, **kwargs: Any) -> None:
                noted.send(Order, order=self)

        def with_options(sender: Any, **kwargs: Any) -> None:
            done.append(current_delivery().attempt)
            raise LookupError

        def late(sender: Any, **kwargs: Any) -> None:
            done.append("late")
            Order.objects.create()

        self.connect(with_options, sender=Order, retry={"max": 1})
        with mute_signals(noted):
            self.assertEqual(noted.send(None), [])
            mute_signals(noted)(OrderFactory)()
            noted.send(None)
            self.connect(late, once=True)
        self.assertEqual((waiting() - self.before, done), (0, []))
        with capture_signals() as sent:
            for _ in range(2):
                noted.options(task_id="5f0f8c1e-2f0a-4c6b-8f7e-0d6c1d3f9a12").send(Order)
        sent.run(reraise=False)
        self.assertEqual(done, [1, "late", 2, 1, 2])
        noted.disconnect(with_options, sender=Order)
        noted.send(None)
        self.assertEqual(waiting() - self.before, 1)

    @mute(my_signal)
    def test_ours(self) -> None:
        with transaction.atomic():
            sent = my_signal.send(None, what=object())
        self.assertEqual((waiting() - self.before, len(sent.id)), (0, 36))
        unheard.send(None)
        self.assertEqual(waiting() - self.before, 1)


class InATestCase(TestCase):
    def test_a_worker_sees_no_row(self) -> None:
        with live_worker() as worker:
            about_a_row.send(None, order=Order.objects.create())
            with self.assertRaises(DeadLettered) as failed:
                worker.wait()
        self.assertIn("use a TransactionTestCase", failed.exception.__notes__[0])


class ThroughAWorker(Fresh, TransactionTestCase):
    def test_the_whole_way(self) -> None:
        """A cascade over threads, a retry, a task of Celery's, rows both ways; and all is as before afterwards."""
        before, settings = waiting(), dict(app.conf.maps[0])

        def flaky(sender: Any, order: Order, **kwargs: Any) -> None:
            done.append((current_delivery().attempt, threading.current_thread().name.startswith("async-signals-live")))
            if len(done) == 1:
                raise LookupError
            Order.objects.filter(pk=order.pk).update(reference="done")
            my_signal.options(durability="background").send("from the receiver")
            add.delay(1, 2)

        async def awaits(sender: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            done.append("awaited")

        self.connect(flaky)
        self.connect(awaits)
        with live_worker() as worker:
            with transaction.atomic():
                order = Order.objects.create()
                noted.send(Order, order=order)
            worker.wait()
        order.refresh_from_db()
        self.assertEqual(order.reference, "done")
        self.assertEqual(done, [(1, True), "awaited", (2, True)])
        self.assertEqual((worker.errors, worker.dead_letters), ([], []))
        self.assertEqual(dict(app.conf.maps[0]), settings)
        self.assertEqual(waiting(), before)
        order_placed.send(None, order_id=1)
        self.assertEqual(waiting(), before + 1)

    def test_a_message_that_cannot_be_run_fails_the_test(self) -> None:
        order = Order.objects.create()
        with live_worker() as worker:
            with transaction.atomic():
                about_a_row.send(None, order=order)
                order.delete()
            with self.assertRaisesRegex(DeadLettered, "MissingRow: order: there is no shopapp.Order"):
                worker.wait()
            worker.wait()  # said once

    def test_what_goes_wrong_is_said(self) -> None:
        self.connect(lambda **_: 1 / 0, weak=False)
        app.conf.task_always_eager = True
        self.addCleanup(setattr, app.conf, "task_always_eager", False)
        with live_worker() as worker:
            noted.send(None)
            with self.assertRaises(ZeroDivisionError) as failed:
                worker.wait()
            self.assertIn("in try 3, the last one", failed.exception.__notes__[-1])
            self.assertEqual([each.kind for each in worker.dead_letters], ["ReceiversFailed"])
            my_signal.options(queue="nowhere").send(None)
            with self.assertRaisesRegex(AssertionError, r"does not read: 'nowhere' \(1\)"):
                worker.wait()
            my_signal.options(countdown=60).send(None)
            with self.assertRaisesRegex(AssertionError, "1 in 'celery'; .* waits .* s for its time"):
                worker.wait(timeout=0.2)
