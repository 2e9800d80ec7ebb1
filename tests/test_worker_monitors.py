"""What monitors see of a worker of ours: what they would see of Celery's."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import FIXTURES, MakeProject, need
from servers import redis
from servers.events import Events
from servers.process import Process, free_port
from servers.project import Broker, Project
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker
from servers.worker import KINDS, Kind, Worker

#: Signals and tasks that go well, fail and are tried again. The last effect of it is that of `LAST`.
SENDS = """
    from shopapp import signals, tasks
    result = {
        "well": signals.my_signal.send("web", number=1).id,
        "failing": signals.troubled.send("web").id,
        "task": tasks.add.delay(1, 2).id,
        "failing task": tasks.fail.delay("key").id,
        "tried again": tasks.third_time_lucky.delay("key").id,
    }
"""


def sent_and_done(project: Project) -> dict[str, str]:
    """Sends all that and waits until it is done."""
    sent: dict[str, str] = project.run(SENDS).result
    project.effects.wait_for(3, "third_time_lucky")
    for effect in ("mine", "after_the_trouble", "add", "fail"):
        project.effects.wait_for(1, effect)
    return sent


@pytest.fixture(params=["redis", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> Broker:
    """The brokers that carry events."""
    broker: Broker = request.getfixturevalue(FIXTURES[request.param])
    return broker


@pytest.fixture
def shop(make_project: MakeProject, server: Broker) -> Project:
    return make_project(server)


@pytest.fixture
def events(shop: Project) -> Iterator[Events]:
    assert shop.url is not None
    events = Events(shop.url)
    yield events
    events.close()


class TestEvents:
    def test_a_worker_says_when_it_comes_while_it_is_there_and_when_it_goes(
        self, shop: Project, events: Events
    ) -> None:
        with shop.worker(kind="ours", options=["--hostname", "shop@here"]):
            (online,) = events.wait_for("worker-online")
            events.wait_for("worker-heartbeat")
            shop.run("from shopapp.signals import my_signal; my_signal.send('web', number=1)")
            shop.effects.wait_for(1, "mine")
            events.wait_until(lambda: events.seen("worker-heartbeat")[-1]["processed"] == 1, "a count of what has run")
        (offline,) = events.wait_for("worker-offline")
        for event in (online, offline, *events.seen("worker-heartbeat")):
            assert event["hostname"] == "shop@here"
            assert event["freq"] == 2.0
            assert event["active"] == 0
            assert len(event["loadavg"]) == 3
            assert {"sw_ident", "sw_ver", "sw_sys", "timestamp", "utcoffset", "pid", "clock"} <= event.keys()
        assert not events.seen("task-received"), "nobody has asked for them"

    def test_tasks_and_signals_tell_what_they_tell_of_celerys_worker(
        self, make_project: MakeProject, server: Broker
    ) -> None:
        told = {kind: self._told(make_project(server), kind) for kind in KINDS}
        assert told["ours"] == told["stock"]
        assert [each["type"] for each in told["ours"]["failing"]] == ["task-failed", "task-received", "task-started"]

    def _told(self, project: Project, kind: Kind) -> dict[str, list[dict[str, Any]]]:
        """The events of each message, by their types, as far as they are not of the moment."""
        assert project.url is not None
        events = Events(project.url)
        with project.worker(kind=kind, options=["--hostname", "shop@here", "--task-events"]):
            sent = sent_and_done(project)
            # A stock worker that is stopped meanwhile may not tell of the last end any more.
            ended = ("task-succeeded", "task-failed")
            events.wait_until(lambda: sum(len(events.seen(each)) for each in ended) == len(sent), "the end of each")
        events.wait_for("worker-offline")
        events.close()
        said = {}
        for name, task_id in sent.items():
            lasting = [_lasting(event, task_id) for event in events.seen() if event.get("uuid") == task_id]
            # The next try of a task may be received before its last one is told to have ended.
            said[name] = sorted(lasting, key=lambda event: (event["type"], event.get("retries", 0)))
        return said

    def test_monitors_switch_task_events_on_and_off(self, shop: Project, events: Events) -> None:
        send = "from shopapp.signals import my_signal; my_signal.send('web', number=1)"
        with shop.worker(kind="ours"):
            for command in ("enable_events", "disable_events"):
                assert "task events" in celery(shop, "control", command)
                shop.run(send)
            shop.effects.wait_for(2, "mine")
            events.wait_for("task-succeeded")
        events.wait_for("worker-offline")
        assert len(events.seen("task-succeeded")) == 1


def _lasting(event: dict[str, Any], id: str) -> dict[str, Any]:
    """An event without what is different each time."""
    momentary = {"timestamp", "local_received", "clock", "pid", "runtime", "uuid", "utcoffset"}
    said = {name: value for name, value in event.items() if name not in momentary}
    for name in ("root_id", "parent_id"):
        said[name] = said.get(name) == id
    # Where in whose code it was raised.
    if "traceback" in said:
        said["traceback"] = said["traceback"].splitlines()[-1]
    return said


def celery(project: Project, *arguments: str, status: int = 0) -> str:
    """Celery's own command line."""
    done = project.python("-m", "celery", "--app", "proj", *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def inspect(project: Project, command: str, *arguments: str) -> Any:
    """What the one worker answers to `celery inspect`."""
    told = json.loads(celery(project, "inspect", "--json", command, *arguments))
    assert list(told) == ["shop@here"]
    return told["shop@here"]


class TestRemoteControl:
    @pytest.fixture
    def running(self, shop: Project) -> Iterator[Worker]:
        with shop.worker(kind="ours", options=["--hostname", "shop@here"]) as running:
            yield running

    def test_inspect(self, shop: Project, running: Worker) -> None:
        assert "shop@here: OK" in celery(shop, "status")
        assert inspect(shop, "ping") == {"ok": "pong"}
        assert {"async_signals.propagate", "shopapp.tasks.add"} <= set(inspect(shop, "registered"))
        assert [queue["name"] for queue in inspect(shop, "active_queues")] == ["celery", "high_priority"]
        assert inspect(shop, "reserved") == inspect(shop, "scheduled") == inspect(shop, "revoked") == []
        assert inspect(shop, "conf")["CELERY_BROKER_URL"]
        sent_and_done(shop)
        stats = inspect(shop, "stats")
        assert stats["total"] == {
            "async_signals.propagate": 2,
            "shopapp.tasks.add": 1,
            "shopapp.tasks.fail": 1,
            "shopapp.tasks.third_time_lucky": 3,
        }
        assert stats["pid"] == running.process.pid
        assert stats["pool"]["max-concurrency"] == 1
        assert len(stats["pool"]["processes"]) == 1
        assert "password" not in stats["broker"]

    @pytest.mark.parametrize("kind", ["signal", "task"])
    def test_what_runs_just_now(self, shop: Project, running: Worker, kind: str) -> None:
        pipe = shop.folder / "pipe"
        os.mkfifo(pipe)
        sends = {
            "signal": f"from shopapp.signals import waiting; result = waiting.send(None, path={str(pipe)!r}).id",
            "task": f"from shopapp import tasks; result = tasks.read.delay({str(pipe)!r}).id",
        }
        sent = shop.run(sends[kind]).result
        shop.effects.wait_for(1)
        (active,) = inspect(shop, "active")
        assert active["id"] == sent
        assert active["name"] == {"signal": "async_signals.propagate", "task": "shopapp.tasks.read"}[kind]
        assert active["delivery_info"]["routing_key"] == "celery"
        assert time.time() - 60 < active["time_start"] <= time.time()
        assert inspect(shop, "query_task", sent)[sent][0] == "active"
        pipe.write_text("enough")

    def test_what_it_cannot_do_it_says(self, shop: Project, running: Worker) -> None:
        assert "does not revoke" in celery(shop, "control", "revoke", "0d6b6c5e-6bd6-4b94-8b3f-3f4f2ba38f0b")
        assert "rate" in celery(shop, "control", "rate_limit", "shopapp.tasks.add", "1/m")
        assert "started" in celery(shop, "control", "pool_grow", "1")

    def test_shutdown(self, shop: Project, running: Worker) -> None:
        celery(shop, "control", "shutdown")
        assert running.process.wait(30) == 0

    def test_it_can_be_switched_off(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server, settings="CELERY_WORKER_ENABLE_REMOTE_CONTROL = False")
        with project.worker(kind="ours"):
            assert "No nodes replied" in celery(project, "inspect", "ping", status=69)


def test_flower(shop: Project) -> None:
    port = free_port()
    flower = Process(
        [sys.executable, "-m", "celery", "--app", "proj", "flower", f"--port={port}", "--address=127.0.0.1"],
        env={**shop.env, "FLOWER_UNAUTHENTICATED_API": "true"},
        cwd=shop.folder,
    )

    def api(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
            return json.load(answer)

    def eventually(path: str, good: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + 60
        while not good(found := api(path)):
            assert time.monotonic() < deadline, f"{path} never said it, but {found}\n{flower.output}"
        return found

    try:
        flower.wait_for("Connected to")
        # Without -E: Flower asks for events by itself.
        with shop.worker(kind="ours", options=["--hostname", "shop@here"]) as running:
            eventually("workers?status=1", lambda found: found.get("shop@here") is True)
            about = eventually("workers?refresh=1", lambda found: "stats" in found.get("shop@here", {}))["shop@here"]
            assert about["stats"]["pid"] == running.process.pid
            assert [queue["name"] for queue in about["active_queues"]] == ["celery", "high_priority"]
            assert any(task.startswith("async_signals.propagate") for task in about["registered"])
            celery(shop, "control", "enable_events")
            sent = sent_and_done(shop)
            states = {"well": "SUCCESS", "failing": "FAILURE", "task": "SUCCESS", "failing task": "FAILURE"}
            wanted = {sent[name]: state for name, state in states.items()}
            tasks = eventually(
                "tasks", lambda found: {sent: found.get(sent, {}).get("state") for sent in wanted} == wanted
            )
        assert tasks[sent["well"]]["name"] == "async_signals.propagate"
        assert "shopapp.signals.my_signal" in tasks[sent["well"]]["args"]
        assert "ReceiversFailed" in tasks[sent["failing"]]["exception"]
        eventually("workers?status=1", lambda found: found.get("shop@here") is False)
    finally:
        flower.stop()


def test_monitoring_survives_the_broker_and_never_hurts_the_worker(make_project: MakeProject, tmp_path: Path) -> None:
    need(redis.program(), "redis-server")
    server = RedisServer(tmp_path, ["--appendonly", "yes", "--appendfsync", "always"])
    try:
        project = make_project(server)
        with project.worker(kind="ours", options=["--hostname", "shop@here", "--task-events"]):
            project.run("from shopapp.signals import my_signal; my_signal.send('web', number=1)")
            project.effects.wait_for(1, "mine")
            server.kill()
            server.start()
            assert project.url is not None
            events = Events(project.url)
            project.run("from shopapp.signals import my_signal; my_signal.send('web', number=2)")
            project.effects.wait_for(2, "mine")
            events.wait_for("worker-online")
            events.wait_for("task-succeeded")
            events.close()
    finally:
        server.stop()


def test_without_a_transport_for_events_it_says_so_once(make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
    project = make_project(sqlite_broker)
    with project.worker(kind="ours", options=["--task-events"]) as running:
        project.run("from shopapp.signals import my_signal; my_signal.send('web', number=1)")
        project.effects.wait_for(1, "mine")
    assert running.output.count("Task events are off") == 1
    assert project.queues() == {}


@pytest.mark.parametrize("watcher", ["sentry", "opentelemetry"])
def test_tracers_see_what_they_see_of_celerys_worker(make_project: MakeProject, server: Broker, watcher: str) -> None:
    seen = {}
    for kind in KINDS:
        project = make_project(server, settings="from proj import watchers")
        file = project.folder / "seen"
        env = {"WATCHER": watcher, "WATCHER_FILE": str(file)}
        with project.worker(kind=kind, options=["--hostname", "shop@here"], env=env) as running:
            sent = sent_and_done(project)
        assert not running.process.running()
        names = {task_id: name for name, task_id in sent.items()}
        lines = [_named(line, names) for line in file.read_text().splitlines()]
        seen[kind] = sorted(map(_sentry if watcher == "sentry" else _opentelemetry, map(json.loads, lines)))
    assert seen["ours"] == seen["stock"]
    one = '"exceptions": []' if watcher == "sentry" else "SpanKind.CONSUMER"
    runs = [line for line in seen["ours"] if one in line and "third_time_lucky" in line]
    assert len(runs) == 3
    assert any("LookupError" in line for line in seen["ours"])
    # Sentry hears of a receiver's own error, which is logged; the task's is expected, and would be a second event.
    assert any("ReceiversFailed" in line for line in seen["ours"]) == (watcher != "sentry")


def _named(line: str, names: dict[str, str]) -> str:
    """Ids by what they stand for."""
    for task_id, name in names.items():
        line = line.replace(task_id, name)
    # Who sent it, which a task that is tried again takes for its host.
    return re.sub(r"\bgen\d+@", "gen@", line)


def _sentry(item: dict[str, Any]) -> str:
    """What an item of an envelope says, without when, where and by which ids."""
    trace = item.get("contexts", {}).get("trace", {})
    return json.dumps(
        {
            "transaction": item.get("transaction"),
            "operation": [trace.get(name) for name in ("op", "status", "origin")],
            "data": _steady(trace.get("data", {})),
            "spans": [
                [span["op"], span.get("description"), span.get("status"), _steady(span.get("data", {}))]
                for span in item.get("spans", ())
            ],
            "exceptions": [
                [each["type"], each["value"], each["mechanism"]["type"], each["mechanism"]["handled"]]
                for each in item.get("exception", {}).get("values", ())
            ],
            "log": [item.get("level"), item.get("logger"), (item.get("logentry") or {}).get("message")],
            "tags": item.get("tags"),
            "job": item.get("extra", {}).get("celery-job"),
        },
        sort_keys=True,
    )


def _opentelemetry(span: dict[str, Any]) -> str:
    return json.dumps(
        {
            "name": span["name"],
            "kind": span["kind"],
            "status": span["status"],
            "attributes": _steady(span["attributes"]),
            "events": [
                [event["name"], event["attributes"].get("exception.type"), event["attributes"].get("exception.message")]
                for event in span["events"]
            ],
        },
        sort_keys=True,
    )


def _steady(data: dict[str, Any]) -> dict[str, Any]:
    """Attributes, of which some are there with another value each time."""
    fleeting = re.compile(r"thread\.|latency|db\.name|origin|reply_to|delivery_tag")
    return {name: "…" if fleeting.search(name) else value for name, value in data.items()}
