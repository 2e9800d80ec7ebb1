"""`manage.py signals`, as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from conftest import FIXTURES, MakeProject
from servers.process import Process
from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker


def answers(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """What a subcommand prints as JSON."""
    done = project.python("-m", "manage", "signals", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestList:
    def test_each_signal_has_its_receivers_with_options_and_the_place_where_they_are(self, embedded: Project) -> None:
        listed = {signal["name"]: signal for signal in answers(embedded, "list")}
        assert listed["shopapp.signals.routed_signal"]["queue"] == "high_priority"
        assert listed["shopapp.signals.buffered"]["durability"] == "background"
        unread = listed["shopapp.signals.unread"]
        assert unread["receivers"] == []
        assert unread["file"].endswith("shopapp/signals.py")
        with open(unread["file"]) as source:
            assert "unread = AsyncSignal" in source.readlines()[unread["line"] - 1]
        ours = [signal for name, signal in listed.items() if name.startswith("async_signals.")]
        assert all(signal["receivers"] for signal in ours), "ours are told where somebody listens"

        (tried,) = [r for r in listed["shopapp.signals.tried"]["receivers"] if r["name"].endswith("tried_in_vain")]
        assert tried["retry"]["max"] == 2
        assert tried["retry"]["on"] == ["Exception"]
        assert tried["sender"] is None
        once = listed["shopapp.signals.kept_once"]["receivers"]
        assert any(receiver["once"] for receiver in once)
        with open(tried["file"]) as source:
            lines = source.readlines()[tried["line"] - 1 :]
        assert any("def tried_in_vain" in line for line in lines[:3])

    def test_a_table_is_for_people_and_a_pattern_chooses(self, embedded: Project) -> None:
        table = embedded.manage("signals", "list", "shopapp.signals.r*").splitlines()
        assert table[0].split()[:3] == ["SIGNAL", "QUEUE", "RECEIVER"]
        assert len({line.index("RECEIVER") for line in table[:1]}) == 1
        assert {line.split()[0] for line in table[1:] if not line.startswith(" ")} == {
            "shopapp.signals.request_started",
            "shopapp.signals.routed_signal",
        }
        assert "(nobody listens)" in embedded.manage("signals", "list", "shopapp.signals.unread")
        assert "No signal is like nothing" in embedded.manage("signals", "list", "nothing")

    def test_without_a_broker_too(self, make_project: MakeProject) -> None:
        project = make_project(None)
        assert answers(project, "list", "shopapp.signals.routed_signal")[0]["queue"] == "high_priority"

    def test_who_reads_only_the_first_line_gets_no_traceback(self, embedded: Project) -> None:
        done = subprocess.run(
            f"{sys.executable} -m manage signals list | head -n 1",
            shell=True,
            check=False,
            env=embedded.env,
            cwd=embedded.folder,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.stdout.startswith("SIGNAL")
        assert done.stderr == ""

    def test_a_graph_has_queues_signals_and_receivers(self, embedded: Project) -> None:
        graph = embedded.manage("signals", "graph", "shopapp.signals.routed_signal").splitlines()
        assert graph[0] == "digraph signals {"
        assert graph[-1] == "}"
        edges = [line.strip() for line in graph if "->" in line]
        assert edges[0].startswith('"signal shopapp.signals.routed_signal" -> "queue high_priority"')
        assert len(edges) == 3


class TestQueues:
    def test_what_waits_is_counted_and_not_taken(self, project: Project) -> None:
        project.send("routed_signal", times=3)
        project.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send(None)")
        with project.our_worker(["celery"]) as worker:
            worker.process.wait_for("is dead-lettered to celery.dead")
        told = {queue["name"]: queue for queue in answers(project, "queues")}
        urgent = told["high_priority"]
        assert (urgent["ready"], urgent["dead_letters"], urgent["error"]) == (3, 0, None)
        assert urgent["signals"] == ["shopapp.signals.routed_signal"]
        assert told["celery"]["dead_letters"] == 1
        kind = project.url.partition(":")[0] if project.url else ""
        assert (urgent["consumers"] == 0) is (kind == "amqp")
        assert (urgent["oldest"] is not None) is (kind != "amqp")
        assert project.queues() == {"high_priority": 3, "celery.dead": 1}
        assert not any(message.delivery_info.get("redelivered") for message in project.take("high_priority"))

    def test_a_broker_that_is_not_there_is_said_in_a_line(self, make_project: MakeProject) -> None:
        project = make_project(None, url="redis://127.0.0.1:1/0")
        done = project.python("-m", "manage", "signals", "queues")
        assert done.returncode == 1
        assert "127.0.0.1:1" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_broker_that_only_celery_speaks_to_and_that_never_answers(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        silent = "CELERY_BROKER_TRANSPORT = 'proj.transports:Silent'\nASYNC_SIGNALS = {'publish_timeout': 0.5}"
        told = answers(make_project(redis_server, settings=silent), "queues")
        assert told
        assert all("the broker does not answer: no answer in 0.5 s" in queue["error"] for queue in told)

    def test_looking_makes_no_file(self, make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
        project = make_project(sqlite_broker)
        assert "not there yet" in project.manage("signals", "queues")
        assert project.queues() == {}


class TestTail:
    @pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
    def test_a_signal_is_followed_from_its_send_to_its_end(
        self, request: pytest.FixtureRequest, make_project: MakeProject, kind: str
    ) -> None:
        server: RedisServer | RabbitmqServer = request.getfixturevalue(FIXTURES[kind])
        project = make_project(server, settings="CELERY_TASK_SEND_SENT_EVENT = True")
        command = [sys.executable, "-m", "manage", "signals", "tail", "shopapp.signals.my*", "--seconds", "120"]
        with project.our_worker(options=["-E"]):
            tail = Process(command, env=project.env, cwd=project.folder)
            try:
                tail.wait_for("Listening")
                deadline = time.monotonic() + 60
                while "succeeded" not in tail.output:  # it says that it listens just before it does
                    assert time.monotonic() < deadline, tail.output
                    project.send("order_placed")
                    project.send("my_signal")
            finally:
                tail.kill()
        told = [line.split() for line in tail.output.splitlines() if "shopapp" in line]
        assert {"sent", "received", "started", "succeeded"} <= {words[1] for words in told}
        assert all(words[2].startswith("shopapp.signals.my_signal[") for words in told)

    def test_a_broker_without_events_is_refused_by_name(self, embedded: Project) -> None:
        done = embedded.python("-m", "manage", "signals", "tail")
        assert done.returncode == 1
        assert "carries no events" in done.stderr


def test_the_worker_is_the_one_that_there_is(embedded: Project) -> None:
    worker = Process(
        [sys.executable, "-m", "manage", "signals", "worker", "-Q", "celery", "-c", "1", "-l", "INFO"],
        env=embedded.env,
        cwd=embedded.folder,
    )
    try:
        worker.wait_for(" ready.")
        embedded.send("my_signal")
        embedded.effects.wait_for(1, "mine")
    finally:
        assert worker.stop(30) == 0


def test_the_worker_leaves_djangos_options_to_django(make_project: MakeProject) -> None:
    project = make_project(None)
    done = project.python("-m", "manage", "signals", "worker", "--settings", "proj.settings", "--pythonpath=.")
    assert done.returncode == 1
    assert "Celery is not configured" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_messages_hold_does_not_reach_the_terminal_as_a_command() -> None:
    from async_signals.management.signals.output import one_line

    assert one_line("a\x1b[2J\tb\nc\x07") == "a�[2J b c�"


def test_wrong_words_are_said_with_the_right_ones(embedded: Project) -> None:
    done = embedded.python("-m", "manage", "signals", "lst")
    assert done.returncode == 2
    # Pythons differ in whether they quote the choices.
    assert "list" in done.stderr.partition("choose from")[2]
