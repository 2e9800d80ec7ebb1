"""`async-signals dead`, as its users run it."""

from __future__ import annotations

import json

from servers.project import Project


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
