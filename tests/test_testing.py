"""The test kit: each assertion can fail and says why, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextvars
import doctest
import gc
import importlib
import os
import pkgutil
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest import mock

import pytest

import async_signals.testing
from async_signals import AsyncSignal, current_delivery, interceptors
from async_signals.testing import CapturedSignals, capture_signals, mute
from conftest import MakeProject
from servers.sqlite import SqliteBroker
from values import Item

ROOT = Path(__file__).parents[1]

placed = AsyncSignal(("order_id", "lines"), name="kit.placed")
paid = AsyncSignal(name="kit.paid", retry={"max": 2, "base": 3600})


class Refused(Exception):
    """What receivers of these tests raise."""


class Unshowable:
    """Equal to nothing, and without a text."""

    def __eq__(self, other: object) -> bool:
        raise Refused

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        raise Refused


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert interceptors.active == []
    assert current_delivery() is None
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("async-signals")] == []


Connect = Callable[..., Any]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(signal, receiver, **options)`, until the test's end."""
    connected: list[tuple[AsyncSignal, Any]] = []

    def connect(signal: AsyncSignal, receiver: Any, **options: Any) -> Any:
        signal.connect(receiver, weak=False, **options)
        connected.append((signal, receiver))
        return receiver

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def divides(**_: Any) -> None:
    raise ZeroDivisionError


def looks_up(**_: Any) -> None:
    raise IndexError


def failure(call: Callable[[], Any]) -> str:
    with pytest.raises(AssertionError) as failed:
        call()
    return str(failed.value)


class TestAssertions:
    @pytest.fixture
    def sent(self) -> CapturedSignals:
        with capture_signals() as sent:
            placed.send(None, order_id=5, lines=[{"price": 3}])
            placed.options(countdown=3).send(Item, order_id=6)
        return sent

    def test_what_is_as_expected_is_returned(self, sent: CapturedSignals) -> None:
        assert sent.assert_sent(placed) is sent[0]
        assert sent.assert_sent(placed, order_id=6) is sent[1]
        assert sent.assert_sent(placed, sender=Item, options={"countdown": 3}, times=1) is sent[1]
        assert sent.assert_sent(placed, order_id=mock.ANY, times=2) is sent[0]
        assert sent.of(placed) == sent
        sent.assert_not_sent(paid)
        sent.assert_not_sent(placed, order_id=7)
        CapturedSignals().assert_nothing_sent()

    def test_what_is_nearest_and_how_it_differs(self, sent: CapturedSignals) -> None:
        assert failure(lambda: sent.assert_sent(placed, order_id=5, lines=[{"price": 4}])) == dedent(
            """\
            kit.placed with order_id=5, lines=[{'price': 4}] was not sent.
            kit.placed was sent twice; nearest is number 1 of them:
              lines[0]['price']: expected 4, but it was 3
            All that was sent:
              1. kit.placed.send(sender=None, order_id=5, lines=[{'price': 3}])
              2. kit.placed.options(countdown=3).send(sender=<class 'values.Item'>, order_id=6)"""
        )

    @pytest.mark.parametrize(
        ("expected", "told"),
        [
            ({"sender": Item, "order_id": 5, "options": {"countdown": 3}}, "order_id: expected 5, but it was 6"),
            ({"sender": "web", "order_id": 5}, "sender: expected 'web', but it was None"),
            ({"order_id": 6, "lines": []}, "lines: expected [], but it was nothing"),
            ({"order_id": 6, "options": {"countdown": 4}}, "options(countdown): expected 4, but it was 3"),
            ({"order_id": 5, "lines": [{"price": 3, "tax": 1}]}, "lines[0]['tax']: expected 1, but it was nothing"),
            ({"order_id": 5, "lines": Unshowable()}, "lines: expected <Unshowable whose repr raises Refused>"),
            ({"order_id": 5, "times": 2}, "kit.placed with order_id=5 was sent once, not twice"),
            ({"times": 3}, "kit.placed was sent twice, not 3 times"),
        ],
    )
    def test_each_kind_of_difference(self, sent: CapturedSignals, expected: dict[str, Any], told: str) -> None:
        assert told in failure(lambda: sent.assert_sent(placed, **expected))

    def test_what_was_sent_instead(self, sent: CapturedSignals) -> None:
        assert "kit.paid was not sent.\nAll that was sent:\n  1. kit.placed" in failure(lambda: sent.assert_sent(paid))
        assert (
            failure(lambda: CapturedSignals().assert_sent(paid)) == "kit.paid was not sent.\nNothing was sent at all."
        )

    def test_what_was_not_to_be_sent(self, sent: CapturedSignals) -> None:
        assert failure(lambda: sent.assert_not_sent(placed, sender=Item)).startswith(
            "kit.placed with sender=<class 'values.Item'> was sent once:\n  1. kit.placed"
        )
        assert failure(sent.assert_nothing_sent).startswith("2 signals were sent:\n  1. kit.placed")

    def test_long_values_and_many_signals_are_cut_short(self) -> None:
        with capture_signals() as sent:
            for number in range(100):
                paid.send(None, number=number, text="x" * 1000)
        told = failure(lambda: sent.assert_sent(paid, number=-1))
        assert "… and 80 more" in told
        assert len(told) < 10_000

    def test_an_assertion_that_could_never_fail_is_refused(self, sent: CapturedSignals) -> None:
        with pytest.raises(TypeError, match=r"never sent with 'oder_id': its providing_args are lines, order_id"):
            sent.assert_not_sent(placed, oder_id=5)
        with capture_signals(placed) as only_placed:
            pass
        with pytest.raises(ValueError, match=r"only for kit.placed, and cannot know of kit.paid"):
            only_placed.assert_not_sent(paid)
        with pytest.raises(ValueError, match="above 0"):
            sent.assert_sent(placed, times=0)
        with pytest.raises(TypeError, match="AsyncSignals"):
            sent.assert_not_sent("kit.placed")  # type: ignore[arg-type]
        with mute(paid):
            assert "kit.paid is muted" in failure(lambda: sent.assert_sent(paid))


class TestCapturing:
    def test_what_a_field_of_an_instance_holds_is_kept_too(self) -> None:
        # As a JSONField holds a list.
        item = Item.from_db("default", ["id", "name", "price"], [5, ["as", "sent"], 0])
        with capture_signals() as sent:
            placed.send(None, order_id=item)
        item.name.append("changed")
        assert sent[0].kwargs["order_id"].name == ["as", "sent"]

    def test_what_is_changed_later_changes_nothing(self) -> None:
        lines, note = [{"price": 3, "tags": {"a"}}], {"deep": ([1],)}
        with capture_signals() as sent:
            paid.send(None, lines=lines, note=note)
        lines[0]["tags"].add("b")  # type: ignore[attr-defined]
        note["deep"][0].append(2)
        assert sent[0].kwargs == {"lines": [{"price": 3, "tags": {"a"}}], "note": {"deep": ([1],)}}

    def test_the_inner_one_records_in_whatever_order_they_end(self) -> None:
        first, second, third = capture_signals(), capture_signals(placed), capture_signals()
        a = first.__enter__()
        b = second.__enter__()
        placed.send(None, order_id=1)
        paid.send(None)
        first.__exit__(None, None, None)
        c = third.__enter__()
        second.__exit__(None, None, None)
        placed.send(None, order_id=2)
        third.__exit__(None, None, None)
        assert [[each.kwargs for each in captured] for captured in (a, b, c)] == [
            [{}],
            [{"order_id": 1}],
            [{"order_id": 2}],
        ]

    def test_other_threads_and_coroutines(self) -> None:
        async def send() -> None:
            await asyncio.gather(*(placed.asend(None, order_id=number) for number in range(10)))

        def repeatedly() -> None:
            for number in range(100):
                paid.send(None, number=number)

        with capture_signals() as sent:
            threads = [threading.Thread(target=repeatedly) for _ in range(4)]
            for thread in threads:
                thread.start()
            asyncio.run(send())
            for thread in threads:
                thread.join()
        assert (len(sent.of(paid)), len(sent.of(placed))) == (400, 10)
        assert len({each.id for each in sent}) == 410

    def test_it_decorates(self) -> None:
        @capture_signals()
        def function() -> list[Any]:
            return list(placed.send(None, order_id=1))

        assert function() == []
        with pytest.raises(TypeError, match=r"with parentheses"):
            capture_signals(lambda: None)  # type: ignore[arg-type]


class TestRunning:
    def test_the_wire_and_the_delivery(self, connect: Connect) -> None:
        met: list[Any] = []
        connect(placed, lambda **given: met.append((given, current_delivery())))
        lines = [(1, {2})]
        with capture_signals() as sent:
            placed.options(queue="slow").send(Item, order_id=5, lines=lines)
        [ran] = sent.run()
        [(given, delivery)] = met
        assert (given["sender"], given["lines"]) == (Item, lines)
        assert given["lines"][0] is not sent[0].kwargs["lines"][0]
        assert (delivery.id, delivery.signal, delivery.attempt, delivery.queue) == (sent[0].id, "kit.placed", 1, "slow")
        assert (ran.signal, ran.response, ran.attempts, ran.failed) == (sent[0], None, 1, False)
        assert sent.run() == []

    def test_in_the_order_of_their_times(self, connect: Connect) -> None:
        order: list[Any] = []
        connect(paid, lambda number, **_: order.append(number))
        now = datetime.now(UTC)
        with capture_signals() as sent:
            paid.options(countdown=100).send(None, number=4)
            paid.send(None, number=1)
            paid.options(eta=now + timedelta(seconds=50)).send(None, number=3)
            paid.options(countdown=0).send(None, number=2)
        sent.run()
        assert order == [1, 2, 3, 4]

    def test_what_expires_before_its_time_is_left_alone(self, connect: Connect) -> None:
        ran: list[Any] = []
        connect(paid, lambda number, **_: ran.append(number))
        with capture_signals() as sent:
            paid.options(expires=10).send(None, number=1)
            paid.options(expires=10, countdown=20).send(None, number=2)
            paid.options(expires=datetime.now(UTC) - timedelta(seconds=1)).send(None, number=3)
        assert [each.kwargs["number"] for each in sent.run().expired] == [3, 2]
        assert ran == [1]

    def test_retries_at_once_until_it_succeeds(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        tried: list[Any] = []

        def flaky(**_: Any) -> str:
            delivery = current_delivery()
            assert delivery is not None
            tried.append(delivery.attempt)
            if len(tried) < 3:
                raise Refused
            return "done"

        connect(paid, lambda **_: "at once")
        connect(paid, flaky)
        with capture_signals() as sent:
            paid.send(None)
        assert [(run.response, run.attempts) for run in sent.run()] == [("at once", 1), ("done", 3)]
        assert tried == [1, 2, 3]
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]

    def test_a_receivers_own_error_is_raised(self, connect: Connect) -> None:
        error = Refused("no")

        async def fails(**_: Any) -> None:
            raise error

        connect(paid, fails, dispatch_uid="fails")
        with capture_signals() as sent:
            paid.send(None)
        with pytest.raises(Refused) as raised:
            sent.run()
        assert raised.value is error
        assert error.__notes__ == [f"raised by receiver fails of signal kit.paid[{sent[0].id}] in try 3, the last one"]
        paid.disconnect(dispatch_uid="fails")

    def test_several_are_a_group_and_none_hides_another(self, connect: Connect) -> None:
        ran: list[Any] = []
        connect(paid, divides, retry=False)
        connect(paid, looks_up, retry={"max": 5, "on": KeyError})
        connect(paid, lambda **_: ran.append(1))
        with capture_signals() as sent:
            paid.send(None)
            paid.send(None)
        with pytest.raises(ExceptionGroup, match="4 receivers failed") as raised:
            sent.run()
        assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError, IndexError] * 2
        assert ran == [1, 1]

    def test_failures_can_be_looked_at_instead(self, connect: Connect) -> None:
        connect(paid, divides)
        connect(paid, looks_up, retry=False)
        with capture_signals() as sent:
            paid.send(None)
        runs = sent.run(reraise=False)
        assert {(type(run.response), run.attempts, run.failed) for run in runs} == {
            (ZeroDivisionError, 3, True),
            (IndexError, 1, True),
        }
        [letter] = runs.dead_letters
        assert letter.kind == "ReceiversFailed"
        assert "divides failed in try 3, the last one: ZeroDivisionError" in letter.reason

    def test_a_receiver_that_is_gone_by_its_retry(self, connect: Connect) -> None:
        def goes(**_: Any) -> None:
            paid.disconnect(goes)
            raise Refused

        connect(paid, goes)
        with capture_signals() as sent:
            paid.send(None)
        runs = sent.run(reraise=False)
        assert [letter.kind for letter in runs.dead_letters] == ["UnknownReceiver"]
        assert "is not here any more" in str(runs.errors[0])

    def test_what_receivers_change_around_them_is_gone(self, connect: Connect) -> None:
        language = contextvars.ContextVar("language", default="en")
        connect(paid, lambda **_: language.set("de"))
        with capture_signals() as sent:
            paid.send(None)
        sent.run()
        assert language.get() == "en"

    def test_a_test_outcome_ends_all(self, connect: Connect) -> None:
        connect(paid, lambda **_: pytest.fail("from a receiver"))
        with capture_signals() as sent:
            paid.send(None)
        with pytest.raises(pytest.fail.Exception, match="from a receiver"):
            sent.run()


class TestDraining:
    def test_a_cascade_also_when_the_capture_has_ended(self, connect: Connect) -> None:
        connect(paid, lambda number, **_: number and paid.send(None, number=number - 1))
        with capture_signals(paid) as sent:
            paid.send(None, number=3)
        assert len(sent.run()) == 1
        assert len(sent) == 2
        assert sent.drain().messages == 3
        assert [each.kwargs["number"] for each in sent] == [3, 2, 1, 0]

    def test_one_without_end(self, connect: Connect) -> None:
        connect(paid, lambda **_: placed.send(None, order_id=1))
        connect(placed, lambda **_: paid.send(None))
        with capture_signals() as sent:
            paid.send(None)
        told = failure(lambda: sent.drain(limit=7))
        assert "has run 7 messages, which is its limit, and 1 are left" in told
        assert told.endswith("kit.paid → kit.placed → kit.paid")

    def test_errors_are_raised_when_all_has_run(self, connect: Connect) -> None:
        def sends_and_fails(number: int, **_: Any) -> None:
            if number:
                paid.send(None, number=number - 1)
            raise Refused(number)

        connect(paid, sends_and_fails, retry=False)
        with capture_signals() as sent:
            paid.send(None, number=2)
        with pytest.raises(ExceptionGroup) as raised:
            sent.drain()
        assert [error.args for error in raised.value.exceptions] == [(2,), (1,), (0,)]

    def test_from_a_coroutine(self, connect: Connect) -> None:
        async def awaited(**_: Any) -> str:
            return "awaited"

        async def test() -> list[Any]:
            with capture_signals() as sent:
                await paid.asend(None)
            with pytest.raises(RuntimeError, match="await arun"):
                sent.drain()
            return [run.response for run in await sent.adrain()]

        connect(paid, awaited)
        assert asyncio.run(test()) == ["awaited"]


class TestMuting:
    def test_a_sender_that_is_gone_mutes_nothing(self) -> None:
        """Django 6 drops a receiver with the object that it was connected for."""

        class Till:
            pass

        signal, till = AsyncSignal(name="kit.of_a_till"), Till()
        signal.connect(looks_up, sender=till)
        del till
        gc.collect()
        signal.has_listeners(None)
        with capture_signals() as sent:
            signal.send(None)
        assert len(sent) == 1

    def test_nothing_is_sent_or_captured_and_no_receiver_runs(self, connect: Connect) -> None:
        connect(paid, lambda **_: pytest.fail("it ran"))
        with capture_signals() as sent, mute(paid), capture_signals() as inner:
            result = paid.options(task_id="5f0f8c1e-2f0a-4c6b-8f7e-0d6c1d3f9a11").send(None, what=object())
            placed.send(None, order_id=1)
        assert (result, result.id) == ([], "5f0f8c1e-2f0a-4c6b-8f7e-0d6c1d3f9a11")
        assert (len(sent), len(inner)) == (0, 1)

    def test_all_of_them(self) -> None:
        with capture_signals() as sent, mute():
            placed.send(None, order_id=1)
            asyncio.run(paid.asend(None))
        assert sent == []

    def test_it_decorates_functions_coroutines_and_test_cases(self) -> None:
        @mute(paid)
        def function() -> str | None:
            return paid.send(None).id

        @mute(paid)
        async def coroutine() -> str | None:
            return (await paid.asend(None)).id

        @mute(paid)
        class Case(unittest.TestCase):
            def runTest(self) -> None:  # noqa: N802
                paid.send(None)

        with capture_signals() as sent:
            assert function()
            assert asyncio.run(coroutine())
            assert Case().run().wasSuccessful()  # type: ignore[union-attr]
            assert sent == []
            paid.send(None)
        assert len(sent) == 1
        with pytest.raises(TypeError, match="decorate its methods"):
            mute(paid)(type("NoCase", (), {}))

    def test_receivers_that_are_taken_away_for_good(self, connect: Connect) -> None:
        connect(paid, lambda **_: None)
        before = paid.receivers
        with capture_signals() as sent:
            paid.receivers = []
            paid.send(None, number=1)
            connect(paid, lambda **_: None)
            paid.send(None, number=2)
            paid.receivers = before
            paid.send(None, number=3)
        assert [each.kwargs["number"] for each in sent] == [2, 3]


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(async_signals.testing.__path__)])
def test_the_examples_in_the_code(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"async_signals.testing.{module}"))
    assert found.failed == 0


@pytest.mark.parametrize("runner", ["manage.py test", "pytest"])
def test_in_test_cases_of_django(make_project: MakeProject, sqlite_broker: SqliteBroker, runner: str) -> None:
    """With a database, transactions, factory_boy and a worker: `shopapp/test_kit.py`."""
    project = make_project(sqlite_broker)
    if runner == "pytest":
        done = project.python(
            *("-m", "pytest", "-q", "-c", os.devnull, "--noconftest", "-p", "no:cacheprovider"),
            *("--pyargs", "shopapp.test_kit"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "18 passed" in done.stdout
    else:
        assert "Ran 18 tests" in project.manage("test", "shopapp.test_kit", "--noinput")


def test_the_shops_tests(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "test", "--noinput"],
        cwd=ROOT / "examples" / "shop",
        env={**os.environ, "SHOP_DATA_DIR": str(tmp_path), "SHOP_BROKER_URL": "redis://localhost:1/0"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 7 tests" in done.stderr


class TestFixtures:
    """The plugin, in a pytest of its own, in two processes side by side."""

    CONFTEST = """
        import django
        from django.conf import settings

        settings.configure(USE_TZ=True, DATABASES={})
        django.setup()

        from celery import Celery

        app = Celery("kit", broker="redis://localhost:1/0")
        app.set_default()
        """

    def test_they_do_what_they_say(self, tmp_path: Path) -> None:
        (tmp_path / "conftest.py").write_text(dedent(self.CONFTEST))
        (tmp_path / "test_fixtures.py").write_text(
            dedent(
                """
                import pytest
                from async_signals import AsyncSignal
                from conftest import app

                happened = AsyncSignal(name="kit.happened")
                ran = []

                def receiver(number, **named):
                    ran.append(number)

                happened.connect(receiver)

                @pytest.mark.parametrize("number", range(4))
                def test_captured(captured_signals, number):
                    happened.send(None, number=number)
                    captured_signals.assert_sent(happened, number=number, times=1)

                @pytest.mark.parametrize("number", range(2))
                def test_worker(signals_worker, number):
                    ran.clear()
                    happened.send(None, number=number)
                    signals_worker.wait()
                    assert ran == [number]

                def test_muted(muted_signals):
                    assert happened.send(None, what=object()).id

                def test_nothing_is_left():
                    from async_signals import interceptors
                    assert interceptors.active == []
                    assert app.conf.broker_url == "redis://localhost:1/0"

                def test_fails(captured_signals):
                    captured_signals.assert_sent(happened)
                """
            )
        )
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-n", "2"),
                *("-p", "pytest_async_signals", "-p", "no:django", "-p", "no:cacheprovider"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert "1 failed, 8 passed" in done.stdout, done.stdout + done.stderr
        assert "E       AssertionError: kit.happened was not sent." in done.stdout
        assert "capture.py" not in done.stdout  # the test is where it failed

    def test_nothing_is_loaded_before_it_is_asked_for(self) -> None:
        code = """
            import sys
            import pytest_async_signals
            print(sorted({"django", "celery", "async_signals"} & set(sys.modules)))
            """
        done = subprocess.run(
            [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.strip() == "[]"
