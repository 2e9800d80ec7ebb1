"""`manage.py signals doctor`: each fault is brought about, found, and told with what mends it."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeProject
from servers.process import Process
from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker

Finding = dict[str, Any]

#: The embedded broker in a place that the project's own settings name.
EMBEDDED = 'CELERY_BROKER_URL = f\'sqla+sqlite:///{__import__("os").environ["PROJECT_FOLDER"]}/broker.sqlite3\''
SHORT = 'ASYNC_SIGNALS = {"publish_timeout": 1}'


def doctor(project: Project, *, fails: bool = True) -> list[Finding]:
    """What it finds; `fails`: whether it says by its exit code that signals do not get through."""
    done = project.python("-m", "manage", "signals", "doctor", "--json")
    assert (done.returncode == 1) is fails, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def found(findings: list[Finding], *words: str, level: str = "error") -> Finding:
    """The finding of this level whose text has all the words; it must say what mends it."""
    matching = [each for each in findings if each["level"] == level and all(word in each["text"] for word in words)]
    assert len(matching) == 1, findings
    assert matching[0]["cure"], matching
    return matching[0]


@pytest.mark.parametrize(
    ("settings", "words", "level"),
    [
        ('ASYNC_SIGNALS = {"app": "nowhere.celery:app"}', ["nowhere.celery:app", "cannot be loaded"], "error"),
        ('ASYNC_SIGNALS = {"durabilty": "background"}', ["no setting 'durabilty'"], "error"),
        ("CELERY_BROKER_URL = 'carrot://localhost'", ["broker_url cannot be used"], "error"),
        ("CELERY_BROKER_URL = f'sqla+sqlite:///{shared._folder}/default.sqlite3'", ["is also DATABASES"], "error"),
        ("CELERY_ACCEPT_CONTENT = ['pickle']", ["Signals are sent as JSON"], "error"),
        ('ASYNC_SIGNALS = {"on_failure": "nowhere.tell"}', ["cannot be called"], "error"),
        ("CELERY_IMPORTS = ('nowhere.tasks',)", ["modules do not load", "nowhere"], "error"),
        ("CELERY_TASK_ALWAYS_EAGER = True", ["task_always_eager"], "warning"),
        ("CELERY_TASK_CREATE_MISSING_QUEUES = False", ["high_priority", "cannot be sent"], "warning"),
        ("CELERY_TASK_ROUTES = ['proj.routes.nowhere']", ["no attribute 'nowhere'"], "error"),
    ],
    ids=[
        "the app is not there",
        "a setting is misspelt",
        "no such broker",
        "the broker is a database",
        "json is not accepted",
        "on_failure is not there",
        "a worker's module does not load",
        "eager",
        "queues may not be made",
        "a router is not there",
    ],
)
def test_what_is_wrong_in_the_settings(make_project: MakeProject, settings: str, words: list[str], level: str) -> None:
    project = make_project(None, settings=f"{EMBEDDED}\n{settings}")
    found(doctor(project), *words, level=level)


def test_celery_is_not_configured(make_project: MakeProject) -> None:
    found(doctor(make_project(None)), "Celery is not configured")


def test_a_table_is_missing(embedded: Project) -> None:
    finding = found(doctor(embedded), "no table", "once=True")
    assert "migrate" in finding["cure"]


def test_nothing_is_wrong(project: Project) -> None:
    project.migrate()
    with project.our_worker(["celery", "high_priority", "unread", "tries"]) as worker:
        findings = doctor(project, fails=False)
        assert "Signals get through" in project.manage("signals", "doctor")
        assert "Traceback" not in worker.output
    ok = [finding["what"] for finding in findings if finding["level"] == "ok"]
    assert {"settings", "broker", "round trip", "dead letters"} <= set(ok), findings
    assert project.queues() == {}


class TestBroker:
    def test_it_is_down(self, make_project: MakeProject) -> None:
        finding = found(doctor(make_project(None, url="amqp://127.0.0.1:1//", settings=SHORT)), "127.0.0.1:1")
        assert "Start the broker" in finding["cure"]

    def test_it_never_answers(self, make_project: MakeProject) -> None:
        with silent() as address:
            began = time.monotonic()
            findings = doctor(make_project(None, url=f"redis://{address}/0", settings=SHORT))
            assert time.monotonic() - began < 60
        assert "Start the broker" in found(findings, "no answer")["cure"]

    def test_it_is_another_program(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(None, url=f"amqp://127.0.0.1:{redis_server.port}//", settings=SHORT)
        found(doctor(project), str(redis_server.port))

    @pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
    def test_it_does_not_know_the_password(
        self, make_project: MakeProject, tmp_path: Path, request: pytest.FixtureRequest, kind: str
    ) -> None:
        if kind == "redis":
            server = RedisServer(tmp_path, password="right")
            url = f"redis://:wrong@127.0.0.1:{server.port}/0"
            request.addfinalizer(server.stop)
        else:
            rabbitmq: RabbitmqServer = request.getfixturevalue("rabbitmq_server")
            url = rabbitmq.url(password="wrong")
        findings = doctor(make_project(None, url=url))
        broker = [each for each in findings if each["what"] == "broker"]
        assert "user and password" in broker[0]["cure"]
        assert "wrong" not in json.dumps(findings), "it shows a password"

    def test_the_user_may_not_declare(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> None:
        url = rabbitmq_server.fresh_url()
        vhost = rabbitmq_server.vhost(url)
        user = url.partition("://")[2].partition(":")[0]
        rabbitmq_server.manage("PUT", f"permissions/{vhost}/{user}", {"configure": "^$", "write": "", "read": ".*"})
        findings = doctor(make_project(rabbitmq_server, url=url))
        refused = [each for each in findings if each["level"] == "error" and each["what"] == "round trip"]
        assert "permission" in refused[0]["cure"], findings

    def test_the_file_cannot_be_written(self, make_project: MakeProject) -> None:
        project = make_project(None, url="sqla+sqlite:////proc/nowhere/broker.sqlite3")
        project.migrate()
        found(doctor(project), "/proc/nowhere")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"], ["memory"]),
            (["--replicaof", "127.0.0.1", "1"], ["not confirmed"]),
        ],
        ids=["it is full", "it is a replica"],
    )
    def test_redis_takes_nothing(
        self, make_project: MakeProject, tmp_path: Path, options: list[str], words: list[str]
    ) -> None:
        server = RedisServer(tmp_path, options)
        try:
            findings = doctor(make_project(None, url=server.fresh_url()))
            found([each for each in findings if each["what"] == "round trip"], *words)
        finally:
            server.stop()

    def test_redis_may_throw_messages_away(self, make_project: MakeProject, tmp_path: Path) -> None:
        server = RedisServer(tmp_path, ["--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru"])
        try:
            findings = doctor(make_project(None, url=server.fresh_url()))
            assert "noeviction" in found(findings, "evict", level="warning")["text"]
        finally:
            server.stop()

    def test_celery_publishes_by_itself(self, make_project: MakeProject) -> None:
        options = "{'data_folder_in': '.', 'data_folder_out': '.', 'control_folder': '.'}"
        project = make_project(None, url="filesystem://", settings=f"CELERY_BROKER_TRANSPORT_OPTIONS = {options}")
        project.migrate()
        found(doctor(project), "Celery's own producer", level="warning")


class TestQueues:
    def test_a_queue_has_other_arguments(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> None:
        project = make_project(rabbitmq_server)
        vhost = rabbitmq_server.vhost(project.url or "")
        arguments = {"durable": True, "arguments": {"x-max-length": 5}}
        rabbitmq_server.manage("PUT", f"queues/{vhost}/high_priority", arguments)
        finding = found(doctor(project), "high_priority", "inequivalent arg")
        assert "Delete the queue" in finding["cure"]

    def test_messages_wait_and_nobody_reads(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> None:
        project = make_project(rabbitmq_server)
        project.send("routed_signal")
        assert "-Q high_priority" in found(doctor(project), "1 message waits", "nobody reads it")["cure"]

    def test_messages_wait_for_long(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server)
        project.send("routed_signal")
        (message,) = project.take("high_priority")
        message.headers["async_signals"]["sent_at"] -= 3600
        project.put("high_priority", message.body, message.headers, correlation_id=message.headers["id"])
        found(doctor(project), "1 message waits in queue high_priority", "3,6", level="warning")

    def test_dead_letters_tell_of_older_workers(self, project: Project) -> None:
        project.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send(None)")
        with project.our_worker(["celery"]) as worker:
            worker.process.wait_for("is dead-lettered to celery.dead")
        finding = found(doctor(project), "UnknownSignal", "nobody.knows", level="warning")
        assert "deploy workers" in finding["cure"]


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
class TestWorkers:
    @pytest.fixture
    def project(self, request: pytest.FixtureRequest, make_project: MakeProject, kind: str) -> Project:
        return make_project(request.getfixturevalue(f"{kind}_server"))

    def test_there_is_none(self, project: Project) -> None:
        assert "Start one" in found(doctor(project), "no worker answers")["cure"]

    def test_it_reads_other_queues(self, project: Project) -> None:
        with project.our_worker(["celery"]):
            findings = doctor(project)
        finding = found(findings, "reads queue high_priority", "shopapp.signals.routed_signal")
        assert "-Q high_priority" in finding["cure"]

    @pytest.mark.parametrize("queue", ["celery", "theirs"])
    def test_it_does_not_have_the_task(self, project: Project, queue: str) -> None:
        """Which is nothing to us where it is another project's, and reads that one's queues."""
        (project.folder / "stranger.py").write_text(
            f"from celery import Celery\napp = Celery('stranger', broker={project.url!r})\n"
        )
        worker = Process(
            [sys.executable, "-m", "celery", "-A", "stranger", "worker", "-P", "solo", "-l", "INFO", "-Q", queue],
            env={**project.env, "DJANGO_SETTINGS_MODULE": ""},
            cwd=project.folder,
        )
        try:
            worker.wait_for(" ready.")
            findings = doctor(project)
        finally:
            worker.stop()
        found(findings, "no worker that answers reads queue celery")
        if queue == "celery":
            assert "imports async_signals" in found(findings, "does not have the task async_signals.propagate")["cure"]
        else:
            assert not any("does not have the task" in finding["text"] for finding in findings)


@contextmanager
def silent() -> Iterator[str]:
    """Something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_the_embedded_broker_says_what_it_cannot_tell(make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
    project = make_project(sqlite_broker)
    project.migrate()
    assert found(doctor(project, fails=False), "carries no remote control", level="warning")
