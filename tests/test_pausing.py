"""`manage.py signals pause` and `resume`, `when_paused` and `ASYNC_SIGNALS["enabled"]`: as an operator uses them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from async_signals import AsyncSignal
from conftest import MakeProject
from servers.eventually import eventually
from servers.process import free_port
from servers.project import Broker, Project
from servers.worker import KINDS, Kind

#: A signal that is refused while it is paused, in a module of the project's own.
REFUSING = """
from async_signals import AsyncSignal
urgent = AsyncSignal(name="shop.urgent", aliases=["shop.formerly"], when_paused="refuse")
on_high_priority = AsyncSignal(name="shop.high", when_paused="refuse", queue="high_priority")

def outcome(send, *arguments, **named):
    try:
        send(*arguments, **named)
    except Exception as error:
        return [getattr(error, "code", type(error).__name__), str(error)]
    return ["sent", ""]
"""


def signals(project: Project, *arguments: str, code: int = 0) -> str:
    """Runs `manage.py signals`, and returns what it printed: its errors, where it is to fail."""
    done = project.python("-m", "manage", "signals", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def paused(project: Project) -> list[tuple[str, str, str]]:
    """What is paused, and why."""
    rows = [json.loads(line) for line in signals(project, "pause", "--json").splitlines()]
    return [(row["kind"], row["name"], row["reason"]) for row in rows]


def numbers(project: Project, receiver: str) -> list[Any]:
    return [effect["arguments"]["number"] for effect in project.effects.seen(receiver)]


def send(project: Project, signal: str, *numbers: int) -> None:
    project.run(f"from shopapp import signals\nfor number in {numbers!r}: signals.{signal}.send('web', number=number)")


def _children(pid: int) -> list[int]:
    """The processes of a worker."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu(pid: int) -> float:
    """How many seconds of CPU a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


MINE = "shopapp.signals.my_signal"


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_waits_while_others_run_and_goes_on_when_it_is_resumed(
    make_project: MakeProject, broker: Broker, kind: Kind
) -> None:
    project = make_project(broker)
    project.migrate()
    with project.worker(kind=kind) as worker:
        send(project, "my_signal", 0)
        project.effects.wait_for(1, "mine")
        told = signals(project, "pause", MINE, "--reason", "mails twice")
        assert f"signal {MINE} is paused" in told
        assert paused(project) == [("signal", MINE, "mails twice")]
        worker.process.wait_for(f"Paused from now on: signal {MINE}")
        send(project, "my_signal", 1, 2, 3)
        send(project, "routed_signal", 4)
        project.effects.wait_for(1, "routed_second")
        eventually(lambda: project.queues().get("celery.paused") == 3, "them to be put aside")
        assert worker.output.count("is paused, and waits in celery.paused") == 3
        assert numbers(project, "mine") == [0]
        asked = [json.loads(line) for line in signals(project, "queues", "--json").splitlines()]
        assert {queue["name"]: queue["ready"] for queue in asked}["celery.paused"] == 3

        told = signals(project, "resume", MINE)
        assert f"signal {MINE} is resumed" in told
        assert "3 sent on" in told
        project.effects.wait_for(4, "mine")
        assert numbers(project, "mine") == [0, 1, 2, 3]
    assert paused(project) == []
    assert project.queues() == {}


def test_a_queue_waits_as_it_is_where_our_worker_reads_it(make_project: MakeProject, broker: Broker) -> None:
    project = make_project(broker)
    project.migrate()
    assert "queue high_priority is paused" in signals(project, "pause", "high_priority")
    with project.our_worker() as worker:
        send(project, "routed_signal", 1, 2)
        send(project, "my_signal", 3)
        project.effects.wait_for(1, "mine")
        assert project.queues() == {"high_priority": 2}
        asked = [json.loads(line) for line in signals(project, "queues", "--json").splitlines()]
        assert [queue["name"] for queue in asked if queue["is_paused"]] == ["high_priority"]
        signals(project, "resume", "high_priority")
        worker.process.wait_for("Queue high_priority is resumed")
        project.effects.wait_for(2, "routed_second")
        signals(project, "pause", "high_priority", "celery")
        worker.process.wait_for("Queue celery is paused")
        send(project, "my_signal", 4)
        assert project.queues() == {"celery": 1}
        signals(project, "resume", "--all")
        project.effects.wait_for(2, "mine")
    assert project.queues() == {}


def test_a_worker_of_which_all_queues_are_paused_starts_and_stops(embedded: Project) -> None:
    embedded.migrate()
    signals(embedded, "pause", "high_priority", "celery")
    with embedded.our_worker(options=["-c", "3"]) as worker:
        before = _cpu(worker.process.pid)
        signals(embedded, "resume", "--all")
        assert _cpu(worker.process.pid) - before < 3.0  # it waits for seven seconds

        worker.process.wait_for("Queue celery is resumed")
        send(embedded, "my_signal", 1)
        embedded.effects.wait_for(1, "mine")
        eventually(lambda: len(_children(worker.process.pid)) == 3, "all of its processes")
        assert worker.stop() == 0


def test_a_stock_worker_puts_aside_what_comes_from_a_queue(embedded: Project) -> None:
    embedded.migrate()
    signals(embedded, "pause", "high_priority")
    send(embedded, "routed_signal", 1)
    with embedded.worker() as worker:
        worker.process.wait_for("is paused, and waits in celery.paused")
        embedded.run_the_last(worker)
    assert embedded.queues()["celery.paused"] == 1
    assert "1 sent on" in signals(embedded, "resume", "--queue", "high_priority")
    assert embedded.taken_arguments("number", "high_priority") == [1]


def test_what_a_queue_holds_up_ends_first_however_long_it_takes(embedded: Project) -> None:
    embedded.migrate()
    with embedded.our_worker(options=["--stop-timeout", "0.5"]) as worker:
        pipe = embedded.folder / "pipe"
        os.mkfifo(pipe)
        embedded.run(f"from shopapp import signals\nsignals.waiting.send('web', path={str(pipe)!r})")
        [effect] = embedded.effects.wait_for(1, "waits")
        signals(embedded, "pause", "high_priority")
        worker.process.wait_for("Queue high_priority is paused")
        with pytest.raises(AssertionError):  # four times as long as a stop would wait
            worker.process.wait_for("another one takes its place", timeout=2)
        assert effect["pid"] in _children(worker.process.pid)
        pipe.write_text("go on")
        worker.process.wait_for("Signal shopapp.signals.waiting")
        send(embedded, "my_signal", 1)
        embedded.effects.wait_for(1, "mine")
    assert len(embedded.effects.seen("waits")) == 1


def test_a_queue_that_no_setting_names(embedded: Project) -> None:
    embedded.migrate()
    signals(embedded, "pause", MINE)
    embedded.run("from shopapp.signals import my_signal\nmy_signal.options(queue='tenant-1').send('web', number=1)")
    with embedded.our_worker(queues=["celery", "tenant-1"]) as worker:
        worker.process.wait_for("is paused, and waits in celery.paused")
    assert "1 sent on" in signals(embedded, "resume", "--all")
    assert embedded.queues() == {"tenant-1": 1}


def test_a_signal_that_was_renamed_stays_paused(embedded: Project) -> None:
    embedded.migrate()
    signals(embedded, "pause", "--signal", "shop.formerly")
    assert embedded.run(REFUSING + "result = outcome(urgent.send, None)").result[0] == "paused"
    assert "not paused: shop.gone" in signals(embedded, "resume", "--signal", "shop.gone", code=1)
    assert "signal shop.formerly is resumed" in signals(embedded, "resume", "shop.formerly")


class TestRefusing:
    def test_a_signal_that_refuses_says_so_until_it_is_resumed(self, embedded: Project) -> None:
        embedded.migrate()
        signals(embedded, "pause", "--signal", "shop.urgent")
        signals(embedded, "pause", "high_priority")
        report = embedded.run(
            REFUSING
            + """
import asyncio
from django.db import transaction
from shopapp.signals import my_signal

def in_transaction():
    with transaction.atomic():
        return outcome(urgent.send, None)

result = {
    "refused": outcome(urgent.send, None),
    "in a transaction": in_transaction(),
    "awaited": outcome(lambda: asyncio.run(urgent.asend(None))),
    "by its queue": outcome(on_high_priority.send, None),
    "kept": outcome(my_signal.send, "web"),
    "elsewhere": outcome(urgent.options(queue="celery").send, None),
}
"""
        )
        result = report.result
        for name in ("refused", "in a transaction", "awaited", "elsewhere"):
            assert result[name][0] == "paused", name
            assert "manage.py signals resume shop.urgent" in result[name][1]
        assert "resume --queue high_priority" in result["by its queue"][1]
        assert result["kept"] == ["sent", ""]
        assert embedded.queues() == {"celery": 1}
        signals(embedded, "resume", "--signal", "shop.urgent")
        assert embedded.run(REFUSING + "result = outcome(urgent.send, None)").result == ["sent", ""]

    def test_the_setting_is_for_signals_that_do_not_say(self, make_project: MakeProject, sqlite_broker: Broker) -> None:
        project = make_project(sqlite_broker, settings="ASYNC_SIGNALS = {'when_paused': 'refuse'}")
        project.migrate()
        signals(project, "pause", MINE)
        kept = "kept = AsyncSignal(name='shop.kept', when_paused='keep')"
        code = f"{REFUSING}\n{kept}\nfrom shopapp.signals import my_signal\n"
        signals(project, "pause", "--signal", "shop.kept")
        result = project.run(f"{code}result = [outcome(my_signal.send, None)[0], outcome(kept.send, None)[0]]").result
        assert result == ["paused", "sent"]
        listed = [json.loads(line) for line in signals(project, "list", "--json", MINE).splitlines()]
        assert [signal["when_paused"] for signal in listed] == ["refuse"]

    def test_a_process_that_sends_knows_within_seconds(self, embedded: Project) -> None:
        embedded.migrate()
        sender = embedded.start(
            "-c",
            "import django; django.setup()\n"
            + REFUSING
            + "import time\nwhile True:\n    print(outcome(urgent.send, None)[0], flush=True)\n    time.sleep(0.2)",
        )
        try:
            sender.wait_for("sent")
            signals(embedded, "pause", "--signal", "shop.urgent")
            sender.wait_for("paused", timeout=30)
            since = len(sender.output.splitlines())
            signals(embedded, "resume", "--all")
            sender.wait_for("sent", since=since)
        finally:
            sender.kill()

    def test_a_database_that_is_gone_holds_nothing_up(self, make_project: MakeProject, sqlite_broker: Broker) -> None:
        project = make_project(sqlite_broker)  # and not migrated: there is no table
        assert project.run(REFUSING + "result = outcome(urgent.send, None)").result == ["sent", ""]
        send(project, "my_signal", 1)
        with project.our_worker():
            project.effects.wait_for(1, "mine")


class TestEnabled:
    def test_every_signal_is_paused(self, make_project: MakeProject, sqlite_broker: Broker) -> None:
        project = make_project(sqlite_broker, settings="import os\nASYNC_SIGNALS = {'enabled': 'ON' in os.environ}")
        project.migrate()
        refused = project.run(REFUSING + "result = outcome(urgent.send, None)").result
        assert refused[0] == "paused"
        assert "ASYNC_SIGNALS['enabled'] is False" in refused[1]
        send(project, "my_signal", 1)
        with project.our_worker() as worker:
            worker.process.wait_for("is paused, and waits in celery.paused")
        assert project.queues() == {"celery.paused": 1}
        done = project.python("-m", "manage", "signals", "resume", env={"ON": "1"})
        assert "1 sent on" in done.stdout
        assert project.queues() == {"celery": 1}

    def test_what_is_no_choice_is_refused(self, make_project: MakeProject) -> None:
        for given in ("{'enabled': 'no'}", "{'when_paused': 'drop'}"):
            project = make_project(None, settings=f"ASYNC_SIGNALS = {given}")
            said = project.attempt("from async_signals import settings; settings.get()").failed("ImproperlyConfigured")
            assert "use " in said
        with pytest.raises(ValueError, match="when_paused"):
            AsyncSignal(when_paused="drop")


class TestCommand:
    def test_what_cannot_be_meant_is_named_and_nothing_is_paused(self, embedded: Project) -> None:
        embedded.migrate()
        assert "no signal and no queue 'shop.gone'" in signals(embedded, "pause", "celery", "shop.gone", code=1)
        assert paused(embedded) == []
        assert "not paused: celery" in signals(embedded, "resume", "celery", code=1)
        assert "either names or --all" in signals(embedded, "resume", "celery", "--all", code=2)
        signals(embedded, "pause", "--queue", "celery", "elsewhere")
        assert "was paused already" in signals(embedded, "pause", "celery")
        assert signals(embedded, "pause").split()[:5] == ["KIND", "NAME", "SINCE", "BY", "REASON"]

    def test_a_broker_that_is_down_keeps_nobody_from_it(self, make_project: MakeProject) -> None:
        project = make_project(None, url=f"amqp://guest:guest@127.0.0.1:{free_port()}//")
        project.migrate()
        assert "queue celery is paused" in signals(project, "pause", "celery")
        assert paused(project) == [("queue", "celery", "")]

    def test_without_a_table_it_says_what_to_do(self, make_project: MakeProject, sqlite_broker: Broker) -> None:
        assert "run manage.py migrate" in signals(make_project(sqlite_broker), "pause", "celery", code=1)


def test_the_doctor_names_what_is_paused(embedded: Project) -> None:
    embedded.migrate()
    signals(embedded, "pause", MINE, "high_priority", "--reason", "mails twice")
    send(embedded, "my_signal", 1)
    with embedded.our_worker() as worker:
        worker.process.wait_for("is paused, and waits in celery.paused")
    done = embedded.python("-m", "manage", "signals", "doctor", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    told = "\n".join(f"{each['text']} -> {each['cure']}" for each in found if each["what"] == "paused")
    assert f"signal {MINE} is paused since" in told
    assert ": mails twice -> manage.py signals resume --queue high_priority" in told
    assert "1 message waits in celery.paused -> " in told
