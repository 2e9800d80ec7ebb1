"""What a stock Celery worker does with a signal, beside calling its receivers."""

from __future__ import annotations

import pytest

from servers.project import Project

MAKE_ROW = "from shopapp import signals; from shopapp.models import Order; order = Order.objects.create(reference='A1')"


class TestFailingReceivers:
    def test_each_is_logged_by_its_name_and_none_stops_the_others(self, project: Project) -> None:
        with project.worker() as worker:
            sent = project.run("from shopapp.signals import troubled; result = troubled.send('web').id")
            project.effects.wait_for(1, "after_the_trouble")
            worker.process.wait_for("2 receivers of shopapp.signals.troubled failed")
            log = worker.output
            project.run_the_last(worker)
        assert [effect["receiver"] for effect in project.effects.seen()] == [
            "before_the_trouble",
            "in_trouble",
            "after_the_trouble",
        ]
        assert "RuntimeError: the printer is on fire" in log
        failed = [line for line in log.splitlines() if "failed in try" in line]
        assert len(failed) == 2, "one line for each failed try"
        for line, receiver in zip(failed, ("shopapp.models.in_trouble", "shopapp.models._partially"), strict=True):
            assert "ERROR/" in line
            assert f"Receiver {receiver} of signal shopapp.signals.troubled[{sent.result}] failed in try 1: " in line
        assert log.count("Traceback") == 2, "each traceback once"
        assert project.effects.seen("before_the_trouble")[0]["arguments"] == {
            "id": sent.result,
            "named": "shopapp.signals.troubled",
            "attempt": 1,
            "queue": "celery",
            "dated": True,
        }
        # No retry by default: the message is done.
        assert project.queues() == {}


#: What kombu's SQLAlchemy transport ends a stock worker with when it puts a message back while it polls.
_KOMBUS_RACE = ("no further SQL can be emitted within this transaction", "This transaction is closed")


class TestPoison:
    @pytest.mark.timeout(180)
    def test_what_kills_its_process_is_dead_lettered_after_a_bounded_number_of_deliveries(
        self, project: Project
    ) -> None:
        with project.worker() as worker:
            # As after 45 deaths: a stock worker cannot tell them from clean stops, and its bound is far off.
            project.run(
                """
                from celery.signals import before_task_publish
                from shopapp.signals import poisonous

                @before_task_publish.connect
                def as_if_delivered(headers, **kwargs):
                    headers["async_signals"].update(deliveries=45)

                poisonous.send("web")
                """
            )
            try:
                worker.process.wait_for("is dead-lettered to celery.dead", timeout=120)
            except AssertionError:
                if any(words in worker.output for words in _KOMBUS_RACE):
                    pytest.xfail("kombu's SQLAlchemy transport shares a session between threads, and ended the worker")
                raise
            project.run_the_last(worker)
        assert len(project.effects.seen("kills_its_process")) == 5
        assert project.queues() == {"celery.dead": 1}
        (letter,) = project.take("celery.dead")
        ours = letter.headers["async_signals"]
        assert ours["parked"]["kind"] == "TooManyDeliveries"
        assert ours["parked"]["queue"] == "celery"
        assert ours["deliveries"] == 50


class TestRowsThatAreGone:
    def test_the_row_is_fetched_where_the_receivers_run(self, project: Project) -> None:
        project.migrate()
        project.run(f"{MAKE_ROW}; signals.about_a_row.send(Order, order=order); Order.objects.update(reference='B2')")
        with project.worker():
            (effect,) = project.effects.wait_for(1, "looks_at_the_row")
        assert effect["arguments"] == {"reference": "B2"}

    def test_raise_dead_letters_it_skip_calls_nobody_and_none_passes_none(self, project: Project) -> None:
        project.migrate()
        project.run(
            f"{MAKE_ROW}\nfor signal in (signals.about_a_row, signals.skipping, signals.without_rows):\n"
            f"    signal.send(Order, order=order)\norder.delete()"
        )
        with project.worker() as worker:
            project.run_the_last(worker)
        assert [effect["arguments"] for effect in project.effects.seen("looks_at_the_row")] == [{"reference": None}]
        assert project.queues() == {"celery.dead": 1}
        (letter,) = project.take("celery.dead")
        assert letter.headers["async_signals"]["parked"]["kind"] == "MissingRow"
        assert "shopapp.Order" in letter.headers["async_signals"]["parked"]["reason"]


def test_a_signal_without_receivers_is_done_with_a_warning(project: Project) -> None:
    project.run("from shopapp.signals import unheard; unheard.send('web')")
    with project.worker() as worker:
        project.run_the_last(worker)
        worker.process.wait_for("has no receivers here")
    assert project.queues() == {}
