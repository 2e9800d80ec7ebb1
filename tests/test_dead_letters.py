"""`async-signals dead`, as its users run it."""

from __future__ import annotations

import json

from conftest import MakeProject
from servers.project import Project
from servers.redis import RedisServer


class TestDeadLetters:
    def test_they_are_listed_shown_sent_again_and_thrown_away(self, project: Project) -> None:
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
        letters = [json.loads(line) for line in dead("list", "--json").splitlines()]
        assert [letter["signal"] for letter in letters] == [f"nobody.knows{number}" for number in range(3)]
        assert {letter["kind"] for letter in letters} == {"UnknownSignal"}

        shown = json.loads(dead("show", letters[1]["id"]))
        assert shown["signal"] == "nobody.knows1"
        assert shown["dead_letter_queue"] == "celery.dead"

        (replayed,) = [json.loads(line) for line in dead("replay", letters[0]["id"], "--json").splitlines()]
        assert replayed["queue"] == "celery"
        assert project.queues() == {"celery": 1, "celery.dead": 2}
        dead("purge", "--signal", "nobody.knows1", "--yes")
        assert project.queues() == {"celery": 1, "celery.dead": 1}
        dead("replay", "--all")
        assert project.queues() == {"celery": 2}
        assert "no dead letters" in dead("list")

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
        dead_letter = """
            import json
            from proj import celery_app
            for number, queue in enumerate(["celery", "high_priority", "of tasks"]):
                with celery_app.producer_or_acquire() as producer:
                    producer.publish(
                        [["nobody.knows", None], {}, {}], serializer="json", exchange="", routing_key=f"{queue}.dead",
                        headers={"task": "async_signals.propagate", "id": str(number),
                                 "async_signals": {"queue": queue, "parked": {"kind": "UnknownSignal"}}},
                        correlation_id=str(number),
                    )
        """
        project.run(dead_letter)

        def dead(*arguments: str) -> str:
            done = project.python("-m", "async_signals", "-A", "proj", "dead", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        letters = [json.loads(line) for line in dead("list", "--json").splitlines()]
        assert sorted(letter["dead_letter_queue"] for letter in letters) == [
            "celery.dead",
            "high_priority.dead",
            "of tasks.dead",
        ]
        assert "3 thrown away" in dead("purge", "--all", "--yes")
        assert project.queues() == {}
