"""`manage.py signals dead`, and `async-signals dead`, which is the same: as their users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from conftest import MakeProject
from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer

#: Puts dead letters into queues, as a worker would. `letters` are (queue, signal, kind, receiver, error, age),
#: `arguments` those of the dead-letter queues.
PUT = """
import json, time
from kombu import Exchange, Queue
from proj import celery_app

def durable(name, arguments=None):
    return Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)

with celery_app.producer_or_acquire() as producer:
    for number, (queue, signal, kind, receiver, error, age) in enumerate({letters!r}):
        failures = [] if receiver is None else [{{"receiver": receiver, "error": error, "traceback": None}}]
        parked = {{"kind": kind, "reason": error or "no reason", "queue": queue, "at": time.time() - age,
                   "failures": failures}}
        producer.publish(
            [[signal, None], {{"number": number}}, {{}}], serializer="json", exchange="", routing_key=f"{{queue}}.dead",
            headers={{"task": "async_signals.propagate", "id": str(number),
                     "async_signals": {{"queue": queue, "parked": parked}}}},
            correlation_id=str(number), declare=[durable(queue), durable(f"{{queue}}.dead", {arguments!r})],
        )
"""


def put(
    project: Project,
    letters: list[tuple[str, str, str, str | None, str | None, float]],
    arguments: dict[str, Any] | None = None,
) -> None:
    project.run(PUT.format(letters=letters, arguments=arguments))


def command(project: Project, *, fails: bool = False) -> Callable[..., str]:
    def dead(*arguments: str) -> str:
        done = project.python("-m", "manage", "signals", "dead", *arguments)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return dead


def ids(listed: str) -> list[Any]:
    return [json.loads(line)["id"] for line in listed.splitlines()]


class TestDeadLetters:
    def test_they_are_listed_shown_sent_again_and_thrown_away(self, project: Project) -> None:
        """By their old name: `async-signals dead`, and `purge`."""
        project.run(
            "from async_signals import AsyncSignal\nfor number in range(3):\n"
            "    AsyncSignal(name=f'nobody.knows{number}').send('web', number=number)"
        )
        with project.our_worker() as worker:
            for number in range(3):
                worker.process.wait_for(
                    f"is dead-lettered to celery.dead: this worker has no signal 'nobody.knows{number}'"
                )

        def dead(*arguments: str) -> str:
            done = project.python("-m", "async_signals", "-A", "proj", "dead", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        table = dead("list").splitlines()
        assert len(table) == 4
        assert "this worker has no signal 'nobody.knows0'" in table[1]
        letters = [json.loads(line) for line in dead("list", "--json", "-A", "proj").splitlines()]
        assert [letter["signal"] for letter in letters] == [f"nobody.knows{number}" for number in range(3)]
        assert {letter["kind"] for letter in letters} == {"UnknownSignal"}

        shown = json.loads(dead("show", letters[1]["id"]))
        assert shown["signal"] == "nobody.knows1"
        assert shown["dead_letter_queue"] == "celery.dead"
        assert shown["body"][1] == {"number": 1}

        (replayed,) = [json.loads(line) for line in dead("replay", letters[0]["id"], "--json").splitlines()]
        assert replayed["queue"] == "celery"
        assert project.queues() == {"celery": 1, "celery.dead": 2}
        dead("purge", "--signal", "nobody.knows1", "--yes")
        assert project.queues() == {"celery": 1, "celery.dead": 1}
        dead("replay", "--all")
        assert project.queues() == {"celery": 2}
        assert "No dead letters" in dead("list")

    def test_every_queue_that_a_signal_or_the_settings_name_is_looked_into(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        """Without -Q: a signal's own queue, one that it is routed to, one of another task; once each."""
        project = make_project(
            redis_server,
            settings="""
            CELERY_TASK_ROUTES = [{"shopapp.tasks.*": {"queue": "of tasks"}, "shopapp.slow": "never used"}]
            """,
        )
        put(
            project,
            [
                (name, "nobody.knows", "UnknownSignal", None, None, 0)
                for name in ("celery", "high_priority", "of tasks")
            ],
        )
        dead = command(project)
        letters = [json.loads(line) for line in dead("list", "--json").splitlines()]
        assert sorted(letter["dead_letter_queue"] for letter in letters) == [
            "celery.dead",
            "high_priority.dead",
            "of tasks.dead",
        ]
        assert "3 discarded" in dead("discard", "--all", "--yes")
        assert project.queues() == {}

    def test_a_filter_picks_them_out_and_the_others_stay_in_their_order(self, project: Project) -> None:
        mail, label = "shop.mail.confirm", "shop.label.print"
        put(
            project,
            [
                ("celery", "shop.placed", "ReceiversFailed", mail, "TimeoutError('late')", 7200),
                ("celery", "shop.placed", "ReceiversFailed", label, "ReadTimeoutError('late')", 7200),
                ("celery", "shop.paid", "ReceiversFailed", mail, "builtins.TimeoutError: late", 60),
                ("celery", "shop.gone", "UnknownSignal", None, None, 60),
            ],
        )
        dead = command(project)
        assert ids(dead("list", "--json", "--signal", "shop.placed")) == ["0", "1"]
        assert ids(dead("list", "--json", "--receiver", mail)) == ["0", "2"]
        assert ids(dead("list", "--json", "--exception", "TimeoutError")) == ["0", "2"]
        assert ids(dead("list", "--json", "--older-than", "1h")) == ["0", "1"]
        assert ids(dead("list", "--json", "--newer-than", "1h", "--signal", "shop.paid")) == ["2"]
        assert ids(dead("list", "--json", "--limit", "3")) == ["0", "1", "2"]

        assert "1 sent again" in dead("replay", "--exception", "TimeoutError", "--older-than", "1h")
        assert ids(dead("list", "--json")) == ["1", "2", "3"]
        assert project.taken_arguments("number") == [0]

    def test_who_does_not_say_which_is_asked_and_nothing_is_lost(self, embedded: Project) -> None:
        put(embedded, [("celery", "shop.placed", "UnknownSignal", None, None, 0)])
        dead = command(embedded, fails=True)
        assert "say which ones" in dead("discard", "--yes")
        assert "say which ones" in dead("replay", "0", "--all")
        assert "give --yes" in dead("discard", "--all")
        assert "no dead letter 17" in dead("show", "17")
        assert "no dead letter 17" in dead("replay", "17")
        assert "is no age" in dead("list", "--older-than", "soon")
        assert embedded.queues() == {"celery.dead": 1}

    def test_a_look_delivers_nothing_again(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server)
        put(project, [("celery", "shop.placed", "UnknownSignal", None, None, 0)])
        with redis_server.recorded(project.url or "") as taken:
            command(project)("list")
        assert taken == set()
        (message,) = project.take("celery.dead")
        assert not message.delivery_info.get("redelivered")

    def test_rabbitmq_shows_the_first_thousand_and_says_so_and_all_can_be_sent_again(
        self, make_project: MakeProject, rabbitmq_server: RabbitmqServer
    ) -> None:
        project = make_project(rabbitmq_server)
        put(project, [("celery", "shop.placed", "UnknownSignal", None, None, 0)] * 1100)
        done = project.python("-m", "manage", "signals", "dead", "list", "--json")
        assert ids(done.stdout) == [str(number) for number in range(1000)]
        assert "holds more than the 1,000 oldest" in done.stderr
        assert "1,100 sent again" in command(project)("replay", "--all")
        assert project.queues() == {"celery": 1100}

    def test_looks_use_up_nothing_of_a_quorum_queues_delivery_limit(
        self, make_project: MakeProject, rabbitmq_server: RabbitmqServer
    ) -> None:
        project = make_project(rabbitmq_server)
        letters: list[Any] = [("celery", "shop.placed", "UnknownSignal", None, None, 0)] * 1050
        put(project, letters, {"x-queue-type": "quorum", "x-delivery-limit": 2})
        for _ in range(6):
            done = project.python("-m", "manage", "signals", "dead", "list", "--json")
            assert len(ids(done.stdout)) == 1000
        dead = command(project)
        for _ in range(4):  # it takes all of them, and means one
            assert json.loads(dead("show", "7"))["id"] == "7"
        assert "1 discarded" in dead("discard", "7", "--yes")
        assert "1,049 sent again" in dead("replay", "--all")
        assert {message.headers["id"] for message in project.take("celery")} == {
            str(number) for number in range(1050) if number != 7
        }

    def test_what_cannot_be_sent_again_stays_and_is_said_without_end(
        self, make_project: MakeProject, rabbitmq_server: RabbitmqServer
    ) -> None:
        project = make_project(rabbitmq_server)
        put(project, [("celery", "shop.placed", "UnknownSignal", None, None, 0)] * 30)
        rabbitmq_server.manage("DELETE", f"queues/{rabbitmq_server.vhost(project.url or '')}/celery")
        said = command(project, fails=True)("replay", "--all").splitlines()
        assert "stays in celery.dead: no queue is bound" in said[0]
        assert len(said) == 11
        assert said[-1] == "20 more stay, for reasons such as these"
        assert project.queues() == {"celery.dead": 30}
