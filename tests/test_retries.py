"""Receivers that are tried again, and receivers that run once, with a stock Celery worker."""

from __future__ import annotations

import pytest

from conftest import MakeProject
from servers.project import Project
from servers.redis import RedisServer
from servers.worker import Worker


def wait_until_dead_lettered(worker: Worker) -> None:
    worker.process.wait_for("is dead-lettered to celery.dead")


class TestRetries:
    def test_only_the_receiver_that_failed_is_tried_again_and_then_dead_lettered(self, project: Project) -> None:
        with project.worker() as worker:
            sent = project.run("from shopapp.signals import tried; result = tried.send('web', what=['as sent']).id")
            wait_until_dead_lettered(worker)
            log = worker.output
            project.run_the_last(worker)
        runs = project.effects.seen("tried_in_vain")
        assert len(project.effects.seen("before_the_tries")) == 1
        assert len(project.effects.seen("after_the_tries")) == 1
        assert [run["arguments"]["attempt"] for run in runs] == [1, 2, 3]
        assert {run["arguments"]["id"] for run in runs} == {sent.result}, "a retry has the id of the first"
        first, second, third = (run["arguments"]["at"] for run in runs)
        assert second - first >= 0.4
        assert third - second >= 0.8
        assert "is tried again at" in log

        assert project.queues() == {"celery.dead": 1}
        (message,) = project.take("celery.dead")
        ours = message.headers["async_signals"]
        assert message.headers["id"] == message.properties["correlation_id"] == sent.result
        assert message.headers["retries"] == 2
        assert ours["receivers"] == ["shopapp.tries.tried_in_vain"], "a replay runs only this one"
        assert ours["parked"]["kind"] == "ReceiversFailed"
        assert ours["parked"]["queue"] == "celery"
        (failure,) = ours["parked"]["failures"]
        assert failure["error"] == "ConnectionError('refused in try 3', ['as sent'])"
        assert failure["traceback"].startswith("Traceback (most recent call last)")
        assert "in tried_in_vain" in failure["traceback"]
        assert message.decode()[1] == {"what": ["as sent"]}

    def test_the_signals_policy_is_for_receivers_that_do_not_say(self, project: Project) -> None:
        """It succeeds the second time; another is not tried again; a third fails with what is worth no try."""
        with project.worker() as worker:
            project.run("from shopapp.signals import tried_by_default; tried_by_default.send('web')")
            wait_until_dead_lettered(worker)
            project.effects.wait_for(2, "second_time_lucky")
            project.run_the_last(worker)
        runs = [(effect["receiver"], effect["arguments"]["attempt"]) for effect in project.effects.seen()]
        assert sorted(runs) == [
            ("never_again", 1),
            ("second_time_lucky", 1),
            ("second_time_lucky", 2),
            ("worth_no_try", 1),
        ]
        assert project.queues() == {"celery.dead": 1}
        (message,) = project.take("celery.dead")
        ours = message.headers["async_signals"]
        assert ours["receivers"] == ["picky"], "a receiver is named by its dispatch_uid"
        assert ours["parked"]["failures"][0]["error"] == "ValueError('it would fail again')"

    def test_a_receiver_that_is_gone_is_dead_lettered(self, project: Project) -> None:
        """As after a release without it, with retries on their way; one that is there runs all the same."""
        project.run(
            """
            from celery.signals import before_task_publish
            from shopapp.signals import tried
            names = ["shopapp.tries.after_the_tries", "shopapp.tries.long_gone"]

            @before_task_publish.connect
            def as_if_tried(headers, **kwargs):
                headers["async_signals"].update(attempt=2, receivers=names)

            tried.send("web", what=["as sent"])
            """
        )
        with project.worker() as worker:
            wait_until_dead_lettered(worker)
            project.run_the_last(worker)
        assert [effect["receiver"] for effect in project.effects.seen()] == ["after_the_tries"]
        assert project.queues() == {"celery.dead": 1}
        (message,) = project.take("celery.dead")
        ours = message.headers["async_signals"]
        assert ours["parked"]["kind"] == "UnknownReceiver"
        (told,) = [line for line in worker.output.splitlines() if "is dead-lettered to" in line]
        assert "ERROR" in told
        assert "shopapp.tries.long_gone not here: this worker has no receiver of that name" in told
        assert ours["receivers"] == ["shopapp.tries.long_gone"]
        assert message.decode()[1] == {"what": ["as sent"]}

    def test_what_would_expire_before_the_next_try_is_dead_lettered(self, project: Project) -> None:
        """And does not expire in the dead-letter queue."""
        project.run("from shopapp.signals import tried; tried.options(expires=30).send('web')")
        with project.worker() as worker:
            wait_until_dead_lettered(worker)
        # Dead-lettered after all of its tries: they are over long before.
        assert len(project.effects.seen("tried_in_vain")) == 3
        (message,) = project.take("celery.dead")
        assert message.headers["expires"]
        assert "expiration" not in message.properties


class TestOnce:
    def test_a_message_that_comes_twice_has_one_effect(self, project: Project) -> None:
        project.migrate()
        project.run(
            """
            import uuid
            from shopapp.signals import kept_once, my_signal
            for task_id in [uuid.uuid4()] * 2 + [uuid.uuid4()]:
                kept_once.options(task_id=task_id).send('web')
            my_signal.send('last')
            """
        )
        with project.worker():
            project.effects.wait_for(1, "mine")
        assert len(project.effects.seen("writes_once")) == 2
        assert len(project.effects.seen("writes_once_too")) == 2
        assert written(project) == {"written once": 2, "written once too": 2, "effects": 4}

    def test_a_project_whose_tasks_run_in_a_transaction_of_their_own_keeps_what_was_written(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        project = make_project(redis_server, settings='CELERY_TASK_CLS = "proj.atomic:AtomicTask"')
        project.migrate()
        project.run("from shopapp.signals import kept_once; kept_once.send('web')")
        with project.worker() as worker:
            project.effects.wait_for(1, "writes_once_too")
            project.run_the_last(worker)
            assert "has begun a transaction" not in worker.output
        assert written(project) == {"written once": 1, "written once too": 1, "effects": 2}

    def test_what_a_failed_try_has_written_goes_with_it(self, project: Project) -> None:
        project.migrate()
        project.run("from shopapp.signals import kept_once; kept_once.send('web', failing=True)")
        with project.worker() as worker:
            project.effects.wait_for(2, "writes_once")
            worker.process.wait_for("succeeded")
        assert [effect["arguments"]["attempt"] for effect in project.effects.seen("writes_once")] == [1, 2]
        assert len(project.effects.seen("writes_once_too")) == 1
        assert written(project) == {"written once": 1, "written once too": 1, "effects": 2}


def written(project: Project) -> dict[str, int]:
    """How many rows there are of each kind."""
    report = project.run(
        """
        from collections import Counter
        from async_signals.models import Effect
        from shopapp.models import Order
        result = dict(Counter(Order.objects.values_list("reference", flat=True)), effects=Effect.objects.count())
        """
    )
    return dict(report.result)


class TestEffectsThatAreOld:
    @pytest.fixture
    def aged(self, make_project: MakeProject, redis_server: RedisServer) -> Project:
        project = make_project(redis_server)
        project.migrate()
        project.run(
            """
            from datetime import timedelta
            from django.utils import timezone
            from async_signals.models import Effect
            for days in range(10):
                effect = Effect.objects.create(message=f"message {days}", receiver="shop.receiver")
                Effect.objects.filter(pk=effect.pk).update(at=timezone.now() - timedelta(days=days, minutes=1))
            """
        )
        return project

    def test_the_command_deletes_them(self, aged: Project) -> None:
        assert "3 deleted" in aged.manage("purge_effects")
        assert "0 deleted" in aged.manage("purge_effects")
        assert "5 deleted" in aged.manage("purge_effects", "--older-than", "2")

    def test_the_migrations_are_complete(self, aged: Project) -> None:
        assert "No changes detected" in aged.manage("makemigrations", "--check", "--dry-run", "async_signals")

    def test_a_process_does_it_by_itself(self, aged: Project) -> None:
        report = aged.run(
            """
            import proj
            proj.celery_app.conf.task_always_eager = True
            from async_signals.models import Effect
            from shopapp.signals import kept_once
            kept_once.send("web")
            result = Effect.objects.filter(receiver="shop.receiver").count()
            """
        )
        assert report.result == 7

    def test_a_few_at_a_time(self, aged: Project) -> None:
        report = aged.run("from async_signals import once; result = [once.purge(at_most=2), once.purge(at_most=2)]")
        assert report.result == [2, 1]


class TestConnecting:
    """A receiver's options stand beside Django's registry and follow it."""

    @pytest.fixture
    def here(self, make_project: MakeProject, redis_server: RedisServer) -> Project:
        return make_project(redis_server)

    def test_options_go_with_the_connection(self, here: Project) -> None:
        report = here.run(
            """
            import functools, gc
            from async_signals import AsyncSignal
            signal = AsyncSignal(name="options", retry={"max": 1})

            def told():
                found = []
                for asynchronous, live in enumerate(signal._live_receivers("web")):
                    for name, options in signal._receiver_names("web", live, bool(asynchronous)):
                        retry = signal.retry if options.retry is None else options.retry
                        found.append([name.rpartition(".")[2], retry and retry.max])
                return found

            result = []
            def first(sender, **kwargs): pass
            def second(sender, **kwargs): pass
            class Third:
                def __call__(self, sender, **kwargs): pass
                def method(self, sender, **kwargs): pass
            third = Third()
            signal.connect(first)
            signal.connect(first, sender="shop", dispatch_uid="of the shop", retry={"max": 2})
            signal.connect(first, sender="web", dispatch_uid="of the web", retry={"max": 3})
            signal.connect(second, retry=False)
            signal.connect(third)
            signal.connect(third.method, retry={"max": 4})
            signal.connect(functools.partial(second, what=1), weak=False)
            result.append(told())

            signal.disconnect(second)
            signal.connect(second)
            signal.connect(first, dispatch_uid="of the web", sender="web", retry={"max": 9})
            signal.connect(second, dispatch_uid="of the web", sender="web", retry={"max": 10})
            del third
            gc.collect()
            result.append(told())
            """
        )
        assert report.result == [
            [["first", 1], ["of the web", 3], ["second", False], ["Third", 1], ["method", 4], ["second", 1]],
            # Connected again it has nothing of its own; a receiver whose place is taken changes nothing.
            [["first", 1], ["of the web", 9], ["second", 1], ["second", 1]],
        ]

    def test_a_django_that_keeps_receivers_in_another_form_is_refused_by_name(self, here: Project) -> None:
        report = here.attempt(
            """
            import sys
            from django.dispatch import Signal
            connect = Signal.connect
            def another_form(self, *arguments, **options):
                connect(self, *arguments, **options)
                self.receivers = [entry[::-1] for entry in self.receivers]
            for module in [name for name in sys.modules if name.startswith("async_signals")]:
                del sys.modules[module]
            Signal.connect = another_form
            import async_signals.compat
            """
        )
        assert "keeps receivers in another form" in report.failed("ImportError")

    def test_two_receivers_of_one_name_both_run(self, here: Project) -> None:
        report = here.run(
            """
            from datetime import datetime
            from async_signals import AsyncSignal, Delivery
            from async_signals.propagation import run
            signal = AsyncSignal(name="twins")
            ran = []
            def make(number):
                def twin(sender, **kwargs):
                    ran.append(number)
                    raise LookupError(number)
                return twin
            def other(sender, **kwargs):
                ran.append("other")
            twins = [make(1), make(2)]
            for receiver in (twins[0], other, twins[1]):
                signal.connect(receiver, retry={"max": 1})
            delivery = Delivery("an id", "twins", 1, None, None)
            (name,) = {failure.receiver for failure in run(signal, None, {}, delivery)}
            failures = run(signal, None, {}, delivery, frozenset({name, "gone"}))
            result = [ran, [(failure.receiver == name, failure.error is None) for failure in failures]]
            """
        )
        assert report.result == [[1, "other", 2, 1, 2], [[True, False], [True, False], [False, True]]]

    def test_a_receiver_that_another_package_has_wrapped_keeps_its_name(self, here: Project) -> None:
        """As tracing does, on Django's own class."""
        report = here.run(
            """
            from django.dispatch import Signal
            from async_signals import AsyncSignal, Delivery
            from async_signals.propagation import run
            plain = Signal._live_receivers

            def traced(self, sender):
                receivers, coroutines = plain(self, sender)
                return [lambda receiver=receiver, **named: receiver(**named) for receiver in receivers], coroutines

            Signal._live_receivers = traced
            signal = AsyncSignal(name="traced")

            def works(sender, **kwargs): pass
            def fails(sender, **kwargs): raise LookupError
            signal.connect(works, dispatch_uid="works")
            signal.connect(fails, dispatch_uid="fails", retry={"max": 4})
            [failure] = run(signal, None, {}, Delivery("an id", "traced", 1, None, None))
            result = [failure.receiver, failure.retry.max]
            """
        )
        assert report.result == ["fails", 4]

    @pytest.mark.parametrize(
        ("retry", "kind", "said"),
        [
            ("5", "TypeError", "retry must be a dict"),
            ("True", "TypeError", "retry must be a dict"),
            ("{}", "TypeError", "retry needs 'max'"),
            ("{'max': 5, 'bse': 2}", "TypeError", "retry has no 'bse'; it has max, base"),
            ("{'max': -1}", "ValueError", "retry['max'] is -1"),
            ("{'max': 2.5}", "ValueError", "retry['max'] is 2.5"),
            ("{'max': 5, 'base': '2'}", "ValueError", "retry['base'] is '2'"),
            ("{'max': 5, 'base': float('nan')}", "ValueError", "retry['base'] is nan"),
            ("{'max': 5, 'factor': 0.5}", "ValueError", "retry['factor'] is 0.5"),
            ("{'max': 5, 'cap': -1}", "ValueError", "retry['cap'] is -1"),
            ("{'max': 5, 'jitter': 1}", "ValueError", "retry['jitter'] is 1"),
            ("{'max': 5, 'on': 'OSError'}", "ValueError", "retry['on'] is 'OSError'"),
            ("{'max': 5, 'on': ()}", "ValueError", "retry['on'] is ()"),
        ],
    )
    def test_a_policy_that_cannot_be_right_is_refused(self, here: Project, retry: str, kind: str, said: str) -> None:
        report = here.run(
            f"""
            from async_signals import AsyncSignal
            from django.dispatch import receiver
            signal = AsyncSignal(name="refusing")
            result = []
            def connect():
                @receiver(signal, retry={retry})
                def unheard(sender, **kwargs): pass
            for attempt in (lambda: AsyncSignal(name="refused", retry={retry}), connect):
                try:
                    attempt()
                except Exception as error:
                    result.append([type(error).__name__, str(error)])
            result.append(signal.has_listeners())
            """
        )
        *errors, connected = report.result
        assert [error[0] for error in errors] == [kind, kind]
        assert all(said in error[1] for error in errors), errors
        assert not connected

    def test_once_needs_the_app(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        report = make_project(redis_server, installed=False).attempt(
            """
            from async_signals import AsyncSignal
            signal = AsyncSignal(name="once")
            signal.connect(print, once=True)
            """
        )
        assert "INSTALLED_APPS" in report.failed("ImproperlyConfigured")
