"""Inside a transaction a signal waits for the commit, and goes with a rollback."""

from __future__ import annotations

import os

import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Broker, Project
from servers.redis import RedisServer

WORDS = """
    from django.db import connection, connections, transaction
    from proj.looking import waiting
    from shopapp.models import Order
    from shopapp.signals import my_signal, order_placed

    class Undone(Exception):
        pass
    """


@pytest.fixture
def shop(project: Project) -> Project:
    """A project with its tables, on each of the brokers."""
    project.migrate()
    return project


@pytest.fixture
def one_shop(make_project: MakeProject, redis_server: RedisServer) -> Project:
    """The same on one broker, for what is the same on all."""
    project = make_project(redis_server)
    project.migrate()
    return project


def test_commit(shop: Project) -> None:
    report = shop.run(
        WORDS
        + """
    with transaction.atomic():
        order = Order.objects.create()
        sent = order_placed.send(Order, order_id=order.pk)
        inside = waiting()
    result = [inside, waiting(), sent.id]
    """
    )
    inside, after, sent_id = report.result
    assert (inside, after) == (0, 1)
    [message] = shop.take("celery")
    assert message.headers["id"] == sent_id


def test_rollback(shop: Project) -> None:
    report = shop.run(
        WORDS
        + """
    try:
        with transaction.atomic():
            sent = order_placed.send(Order, order_id=1)
            raise Undone
    except Undone:
        pass
    result = sent.id
    """
    )
    assert report.result, "the id is known before anything is published"
    assert shop.queues() == {}


def test_savepoints(shop: Project) -> None:
    """What a savepoint's rollback undoes is not sent; the rest is, once, in its order."""
    shop.run(
        WORDS
        + """
    with transaction.atomic():
        my_signal.send(None, number=1)
        with transaction.atomic():
            my_signal.send(None, number=2)
        try:
            with transaction.atomic():
                my_signal.send(None, number=3)
                with transaction.atomic():
                    my_signal.send(None, number=4)
                raise Undone
        except Undone:
            pass
        with transaction.atomic():
            my_signal.send(None, number=5)
        my_signal.send(None, number=6)
        assert waiting() == 0
    """
    )
    assert sorted(shop.taken_arguments("number")) == [1, 2, 5, 6]


def test_the_outer_rollback_takes_the_inner_with_it(one_shop: Project) -> None:
    one_shop.run(
        WORDS
        + """
    try:
        with transaction.atomic():
            with transaction.atomic():
                my_signal.send(None, number=1)
            raise Undone
    except Undone:
        pass
    my_signal.send(None, number=2)
    """
    )
    assert one_shop.taken_arguments("number") == [2]


class TestTwoDatabases:
    def test_it_waits_for_the_instances_database(self, shop: Project) -> None:
        report = shop.run(
            WORDS
            + """
    result = []
    with transaction.atomic(using="default"):
        with transaction.atomic(using="other"):
            my_signal.send(None, order=Order.objects.using("other").create())
            result.append(waiting())
        result.append(waiting())
    """
        )
        assert report.result == [0, 1]

    def test_it_waits_for_the_only_open_transaction(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    with transaction.atomic(using="other"):
        my_signal.send(None)
        inside = waiting()
    result = [inside, waiting()]
    """
        )
        assert report.result == [0, 1]

    def test_it_waits_for_the_database_that_is_named(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    result = []
    with transaction.atomic(using="other"):
        with transaction.atomic(using="default"):
            my_signal.options(database="other").send(None)
        result.append(waiting())
    result.append(waiting())
    """
        )
        assert report.result == [0, 1]

    def test_two_open_transactions_and_no_word_which(self, one_shop: Project) -> None:
        report = one_shop.attempt(
            WORDS
            + """
    with transaction.atomic(using="other"), transaction.atomic(using="default"):
        my_signal.send(None)
    """
        )
        text = report.failed("TransactionManagementError")
        assert "options(database=" in text
        assert one_shop.queues() == {}

    def test_an_instance_of_another_database_waits_for_the_open_block(self, one_shop: Project) -> None:
        """Whatever the receivers are told of was not committed yet, and a rollback takes the signal with it."""
        report = one_shop.run(
            WORDS
            + """
    order = Order.objects.using("other").create()
    result = []
    with transaction.atomic(using="default"):
        my_signal.send(None, order=order, number=1)
        result.append(waiting())
    result.append(waiting())
    try:
        with transaction.atomic(using="default"):
            my_signal.send(order, number=2)
            raise Undone
    except Undone:
        result.append(waiting())
    """
        )
        assert report.result == [0, 1, 1]

    def test_a_row_that_was_read_from_a_replica_waits_for_where_it_is_written(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        project = make_project(redis_server, settings='DATABASE_ROUTERS = ["proj.routers.Replica"]')
        project.migrate()
        report = project.run(
            WORDS
            + """
    from django.db import router
    Order.objects.using("other").create(pk=1)
    result = []
    with transaction.atomic(using="default"), transaction.atomic(using="other"):
        order = Order.objects.get(pk=1)
        assert order._state.db == "other", "it was read from the replica"
        my_signal.send(None, order=order)
        transaction.on_commit(lambda: result.append(waiting()), using="other")
    result.append(waiting())
    """
        )
        assert report.result == [0, 1]

    def test_a_database_that_is_not_there(self, one_shop: Project) -> None:
        for block in ("transaction.atomic()", "contextlib.nullcontext()"):
            report = one_shop.attempt(
                WORDS
                + f"""
    import contextlib
    with {block}:
        my_signal.options(database="defualt").send(None)
    """
            )
            assert "defualt" in report.failed("ConnectionDoesNotExist")
        assert one_shop.queues() == {}

    def test_a_database_that_is_named_and_has_no_open_block(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    with transaction.atomic(using="default"):
        my_signal.options(database="other").send(None)
        result = waiting()
    """
        )
        assert report.result == 1


class TestOtherHooks:
    """Signals keep their place among the hooks that others have registered."""

    def test_what_stood_before_one_that_raises_is_published(self, shop: Project) -> None:
        report = shop.run(
            WORDS
            + """
    def bad():
        raise Undone
    try:
        with transaction.atomic():
            with transaction.atomic():
                my_signal.send(None, number=1)
            transaction.on_commit(bad)
            my_signal.send(None, number=2)
    except Undone:
        result = waiting()
    """
        )
        assert report.result == 1
        assert shop.taken_arguments("number") == [1]

    def test_the_order_is_djangos(self, shop: Project) -> None:
        report = shop.run(
            WORDS
            + """
    result = []
    def look():
        result.append(waiting())
    with transaction.atomic():
        transaction.on_commit(look)
        my_signal.send(None)
        my_signal.send(None)
        transaction.on_commit(look)
        with transaction.atomic():
            my_signal.send(None)
        transaction.on_commit(look)
    """
        )
        assert report.result == [0, 2, 3]

    def test_a_hook_that_sends(self, one_shop: Project) -> None:
        one_shop.run(
            WORDS
            + """
    def again():
        with transaction.atomic():
            my_signal.send(None, number=2)
        my_signal.send(None, number=3)
    with transaction.atomic():
        my_signal.send(None, number=1)
        transaction.on_commit(again)
        my_signal.send(None, number=4)
    """
        )
        assert one_shop.taken_arguments("number") == [1, 2, 3, 4]

    def test_the_time_of_others_is_not_the_signals(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        """A hook that takes longer than the deadline loses no signal behind it."""
        project = make_project(redis_server, settings='ASYNC_SIGNALS = {"publish_timeout": 0.5}')
        report = project.run(
            WORDS
            + """
    import threading
    with transaction.atomic():
        my_signal.send(None)
        transaction.on_commit(lambda: threading.Event().wait(0.6))
        my_signal.send(None)
    result = waiting()
    """
        )
        assert report.result == 2

    def test_a_replaced_on_commit_is_asked(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    from unittest import mock
    with mock.patch("django.db.transaction.on_commit", lambda hook: hook()):
        with transaction.atomic():
            my_signal.send(None)
            result = waiting()
    """
        )
        assert report.result == 1

    def test_where_errors_of_eager_receivers_propagate(self, make_project: MakeProject) -> None:
        project = make_project(
            None,
            url="memory://",
            settings="CELERY_TASK_ALWAYS_EAGER = CELERY_TASK_EAGER_PROPAGATES = True",
        )
        report = project.attempt(
            WORDS
            + """
    def receiver(**kwargs):
        raise Undone("in a receiver")
    my_signal.connect(receiver)
    with transaction.atomic():
        my_signal.send(None)
    """
        )
        assert report.failed("Undone") == "in a receiver"
        assert "was not sent" not in report.output


class TestOneWait:
    SEND = (
        WORDS
        + """
    import time
    with transaction.atomic():
        for number in range(100):
            my_signal.send(None, number=number)
        assert {before} == 0
        start = time.monotonic()
    result = time.monotonic() - start
    """
    )

    def test_one_hundred_sends_arrive_in_order(self, shop: Project) -> None:
        shop.run(self.SEND.format(before="waiting()"))
        assert shop.taken_arguments("number") == [*range(100)]

    def test_one_hundred_sends_share_one_deadline(self, make_project: MakeProject) -> None:
        project = make_project(
            None,
            url=f"redis://127.0.0.1:{free_port()}/0",
            settings='ASYNC_SIGNALS = {"publish_timeout": 1}',
        )
        report = project.run(self.SEND.format(before="0"))
        assert report.result < 2
        assert report.output.count("was not sent") == 100


class TestOneThousandSavepoints:
    """Each send has a hook of its own; what the broker needs for one of them, it needs once for all."""

    SEND = (
        WORDS
        + """
    import time
    with transaction.atomic():
        for number in range(1000):
            with transaction.atomic():
                my_signal.send(None, number=number)
        {last}
        start = time.monotonic()
    result = time.monotonic() - start
    """
    )
    ROLLED_BACK = """
        try:
            with transaction.atomic():
                my_signal.send(None, number="undone")
                raise Undone
        except Undone:
            pass
    """

    @pytest.mark.parametrize("last", ["", ROLLED_BACK], ids=["all of them", "the last one is undone"])
    def test_they_arrive_in_order(self, shop: Project, last: str) -> None:
        shop.run(self.SEND.format(last=last))
        assert shop.taken_arguments("number") == [*range(1000)]

    @pytest.mark.parametrize("between", ["", "transaction.on_commit(lambda: None)"], ids=["alone", "among others"])
    def test_they_share_one_deadline(self, make_project: MakeProject, between: str) -> None:
        project = make_project(
            None,
            url=f"redis://127.0.0.1:{free_port()}/0",
            settings='ASYNC_SIGNALS = {"publish_timeout": 1}',
        )
        sends = self.SEND.replace("number=number)", f"number=number)\n            {between}")
        report = project.run(sends.format(last=""))
        assert report.result < 3
        assert report.output.count("was not sent") == 1000


def test_a_dead_broker_at_commit_skips_nobody_elses_hooks(make_project: MakeProject) -> None:
    """The commit succeeds, the other hooks run, and the failure is told to the log and to `on_failure`."""
    project = make_project(
        None,
        url=f"redis://127.0.0.1:{free_port()}/0",
        settings='ASYNC_SIGNALS = {"publish_timeout": 0.5, "on_failure": "proj.failures.note"}',
    )
    project.migrate()
    report = project.run(
        WORDS
        + """
    from proj.failures import wait_for
    ran = []
    with transaction.atomic():
        Order.objects.create(reference="kept")
        transaction.on_commit(lambda: ran.append("before"))
        sent = my_signal.send(None, number=1)
        transaction.on_commit(lambda: ran.append("after"))
    [(signal, id, error)] = wait_for(1)
    result = [ran, Order.objects.count(), id == sent.id, signal, error]
    """
    )
    ran, kept, same_id, signal, error = report.result
    assert ran == ["before", "after"]
    assert kept == 1
    assert same_id
    assert "my_signal" in signal
    assert "SignalNotSent" in error
    assert "was not sent" in report.output


@pytest.mark.parametrize("last", ["return HttpResponse('placed')", "raise Undone"])
def test_a_request_that_is_one_transaction(one_shop: Project, last: str) -> None:
    """ATOMIC_REQUESTS: what a view sends goes once it has returned, and not at all if it raises."""
    report = one_shop.run(
        WORDS
        + f"""
    import sys
    from django.http import HttpResponse
    from django.test import Client, override_settings
    from django.urls import path

    connections.settings["default"]["ATOMIC_REQUESTS"] = True

    def place(request):
        order_placed.options(queue="orders").send(Order, order_id=Order.objects.create().pk)
        inside.append(waiting("orders"))
        {last}

    inside, urlpatterns = [], [path("place", place)]
    with override_settings(ROOT_URLCONF=sys.modules[__name__], ALLOWED_HOSTS=["*"]):
        status = Client(raise_request_exception=False).get("/place").status_code
    result = [inside, status, waiting("orders"), Order.objects.count()]
    """
    )
    placed = last.startswith("return")
    assert report.result == [[0], 200 if placed else 500, int(placed), int(placed)]


class TestOptingOut:
    def test_autocommit_off_is_a_clear_error(self, one_shop: Project) -> None:
        report = one_shop.attempt(
            WORDS
            + """
    Order.objects.count()
    transaction.set_autocommit(False)
    my_signal.send(None)
    """
        )
        text = report.failed("TransactionManagementError")
        assert "autocommit" in text
        assert "on_commit=False" in text

    def test_autocommit_off_and_on_commit_false(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    Order.objects.count()
    transaction.set_autocommit(False)
    my_signal.options(on_commit=False).send(None)
    result = waiting()
    """
        )
        assert report.result == 1

    def test_on_commit_false_sends_at_once(self, shop: Project) -> None:
        report = shop.run(
            WORDS
            + """
    try:
        with transaction.atomic():
            my_signal.options(on_commit=False).send(None)
            result = waiting()
            raise Undone
    except Undone:
        pass
    """
        )
        assert report.result == 1

    def test_as_a_setting(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server, settings='ASYNC_SIGNALS = {"on_commit": False}')
        report = project.run(
            WORDS
            + """
    with transaction.atomic():
        my_signal.send(None)
        result = waiting()
    """
        )
        assert report.result == 1

    def test_asend_publishes_at_once(self, one_shop: Project) -> None:
        report = one_shop.run(
            WORDS
            + """
    import asyncio
    with transaction.atomic():
        asyncio.run(my_signal.asend(None))
        result = waiting()
    """
        )
        assert report.result == 1


def test_what_is_changed_after_the_send_is_not_sent(one_shop: Project) -> None:
    one_shop.run(
        WORDS
        + """
    numbers = [1]
    with transaction.atomic():
        my_signal.send(None, numbers=numbers)
        numbers.append(2)
    """
    )
    assert one_shop.taken_arguments("numbers") == [[1]]


def test_what_cannot_be_sent_fails_where_it_is_sent(one_shop: Project) -> None:
    """Not at the commit, where nobody could see it."""
    report = one_shop.run(
        WORDS
        + """
    with transaction.atomic():
        try:
            my_signal.send(None, what=object())
        except TypeError as error:
            result = str(error)
    """
    )
    assert "what" in report.result
    assert one_shop.queues() == {}


def test_a_transaction_without_sends_and_one_after_another(one_shop: Project) -> None:
    one_shop.run(
        WORDS
        + """
    for number in range(3):
        with transaction.atomic():
            Order.objects.create()
        with transaction.atomic():
            my_signal.send(None, number=number)
    """
    )
    assert one_shop.taken_arguments("number") == [0, 1, 2]


@pytest.mark.parametrize("runner", ["manage.py test", "pytest"])
def test_test_cases_of_django(make_project: MakeProject, broker: Broker, runner: str) -> None:
    """TestCase, TransactionTestCase and captureOnCommitCallbacks, as `shopapp/test_transactions.py` uses them."""
    project = make_project(broker)
    if runner == "pytest":
        done = project.python(
            *("-m", "pytest", "-q", "-c", os.devnull, "--noconftest", "-p", "no:cacheprovider"),
            *("--pyargs", "shopapp.test_transactions"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "12 passed" in done.stdout
    else:
        assert "Ran 12 tests" in project.manage("test", "shopapp.test_transactions", "--noinput")
