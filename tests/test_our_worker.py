"""`async-signals worker`, as its users run it."""

from __future__ import annotations

import bz2
import json
import os
import select
import signal
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Broker, Project
from servers.rabbitmq import USER, RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker


@pytest.fixture
def embedded(make_project: MakeProject, sqlite_broker: SqliteBroker) -> Project:
    """A project on the embedded broker, for what is the same on all of them."""
    return make_project(sqlite_broker)


class Gate:
    """Holds up receivers that read from it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor: int | None = None
        self._path = path

    def open(self) -> None:
        """Lets everybody pass who waits now."""
        self._descriptor = os.open(self._path, os.O_RDWR)
        os.write(self._descriptor, b"!" * 64)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@pytest.fixture
def gate(embedded: Project) -> Iterator[Gate]:
    gate = Gate(embedded.folder / "gate")
    yield gate
    gate.close()


def send(project: Project, name: str, arguments: str = "'web'", times: int = 1) -> None:
    project.run(f"from shopapp import signals\nfor number in range({times}): signals.{name}.send({arguments})")


def refusal(project: Project, *arguments: str, app: str = "proj") -> tuple[int, str]:
    """The exit code of a worker that does not start, and what it says."""
    done = project.python("-m", "async_signals", "-A", app, "worker", "-l", "INFO", *arguments, timeout=60)
    return done.returncode, done.stdout + done.stderr


class TestRunning:
    def test_a_signal_reaches_its_receivers(self, project: Project) -> None:
        send(project, "order_placed", "'web', order_id=number", times=3)
        with project.our_worker() as worker:
            effects = project.effects.wait_for(3, "ordered")
            send(project, "order_placed", "'web', order_id=7")
            project.effects.wait_for(4, "ordered")
            assert worker.stop() == 0, worker.output
        assert [effect["arguments"] for effect in effects] == [{"order_id": number} for number in range(3)]
        assert project.queues() == {}

    def test_the_app_may_be_named_after_the_command(self, embedded: Project) -> None:
        process = embedded.start("-m", "async_signals", "worker", "-A", "proj.celery:app", "-l", "info", "-n", "w1@%h")
        try:
            assert process.wait_for(" ready.").split()[-2].startswith("w1@")
        finally:
            assert process.stop() == 0

    def test_the_banner_shows_broker_queues_processes_and_receivers(
        self, make_project: MakeProject, tmp_path: Path
    ) -> None:
        server = RedisServer(tmp_path, password="hush")
        try:
            project = make_project(None, url=server.url(1))
            with project.our_worker(options=["--concurrency", "2", "--threads", "3"]) as worker:
                output = worker.output
        finally:
            server.stop()
        assert f"127.0.0.1:{server.port}/1" in output
        assert "hush" not in output
        assert "celery, high_priority" in output
        assert "2 processes × 3 threads" in output
        (line,) = [line for line in output.splitlines() if "shopapp.signals.routed_signal " in line]
        assert line.split(maxsplit=1)[1] == "routed_first, routed_second"

    def test_other_tasks_of_the_app_run_too(self, project: Project) -> None:
        with project.our_worker() as worker:
            project.run("from proj import celery_app; celery_app.tasks['celery.accumulate'].delay(1, 2)")
            worker.process.wait_for("celery.accumulate")
            worker.process.wait_for("succeeded in")

    def test_failures_are_logged_and_stop_nobody(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "troubled")
            embedded.effects.wait_for(1, "after_the_trouble")
            worker.process.wait_for("2 receivers of shopapp.signals.troubled failed")
            assert "RuntimeError: the printer is on fire" in worker.output
        assert embedded.queues() == {}

    def test_what_nobody_knows_is_parked(self, embedded: Project) -> None:
        embedded.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with embedded.our_worker() as worker:
            worker.process.wait_for("is parked in celery.dead: this worker has no signal 'nobody.knows'")
        assert embedded.queues() == {"celery.dead": 1}

    def test_threads_run_receivers_side_by_side(self, embedded: Project, gate: Gate) -> None:
        send(embedded, "held_up", "'web', number=number", times=3)
        with embedded.our_worker(options=["--threads", "3"]):
            waiting = embedded.effects.wait_for(3, "waits_at_the_gate")
            gate.open()
            embedded.effects.wait_for(3, "passed")
        assert len({effect["pid"] for effect in waiting}) == 1
        assert len({effect["arguments"]["thread"] for effect in waiting}) == 3

    def test_coroutines_share_a_loop_and_ask_the_database_over_the_threads_connection(self, embedded: Project) -> None:
        embedded.migrate()
        with embedded.our_worker():
            send(embedded, "awaited", times=3)
            awaited = [effect["arguments"] for effect in embedded.effects.wait_for(3, "awaits")]
        assert [effect["created"] for effect in awaited] == [True] * 3
        assert len({effect["loop"] for effect in awaited}) == 1
        before = embedded.effects.seen("comes_before")
        assert [effect["arguments"]["was_open"] for effect in before] == [False] * 3, "closed after each message"

    def test_connections_are_closed_after_each_message(self, embedded: Project) -> None:
        with embedded.our_worker():
            send(embedded, "touching", times=3)
            touched = embedded.effects.wait_for(3, "asks_the_database")
        assert [effect["arguments"]["was_open"] for effect in touched] == [False] * 3

    def test_connections_are_kept_for_as_many_messages_as_celery_keeps_them(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker
    ) -> None:
        project = make_project(sqlite_broker, settings="CELERY_DB_REUSE_MAX = 2\nCELERY_CELERY_DB_REUSE_MAX = 2")
        with project.our_worker():
            send(project, "touching", times=4)
            touched = project.effects.wait_for(4, "asks_the_database")
        assert [effect["arguments"]["was_open"] for effect in touched] == [False, True, False, True]


class TestProcesses:
    def test_one_that_is_killed_is_replaced_and_its_message_runs_again(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "held_up")
            (first,) = embedded.effects.wait_for(1, "waits_at_the_gate")
            os.kill(first["pid"], signal.SIGKILL)
            worker.process.wait_for("was killed by SIGKILL; another one takes its place")
            _, second = embedded.effects.wait_for(2, "waits_at_the_gate")
            gate.open()
            embedded.effects.wait_for(1, "passed")
            assert worker.stop() == 0
        assert first["pid"] != second["pid"]
        assert embedded.queues() == {}

    @pytest.mark.timeout(180)
    def test_what_kills_its_process_is_parked_after_five_deliveries(self, embedded: Project) -> None:
        """Unless a setting says another number, as `test_faults_workers.py` does on each broker."""
        with embedded.our_worker() as worker:
            send(embedded, "poisonous")
            worker.process.wait_for("is parked in celery.dead", timeout=120)
            send(embedded, "my_signal")
            embedded.effects.wait_for(1, "mine")
        assert len(embedded.effects.seen("kills_its_process")) == 5
        assert embedded.queues() == {"celery.dead": 1}

    def test_a_receiver_that_exits_ends_its_process_alone(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "ending")
            worker.process.wait_for("A receiver ended its process: SystemExit(3)")
            worker.process.wait_for("is parked in celery.dead", timeout=120)
            send(embedded, "my_signal")
            embedded.effects.wait_for(1, "mine")

    def test_one_is_replaced_after_so_many_messages(self, embedded: Project) -> None:
        with embedded.our_worker(options=["--max-tasks-per-child", "2", "--prefetch-multiplier", "1"]):
            for number in range(5):
                send(embedded, "order_placed", f"'web', order_id={number}")
                embedded.effects.wait_for(number + 1, "ordered")
            ordered = embedded.effects.seen("ordered")
        pids = [effect["pid"] for effect in ordered]
        assert pids[0] == pids[1]
        assert pids[2] == pids[3]
        assert len(set(pids)) == 3

    def test_sighup_replaces_them(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "my_signal")
            (first,) = embedded.effects.wait_for(1, "mine")
            os.kill(worker.process.pid, signal.SIGHUP)
            worker.process.wait_for("has done its part; another one takes its place")
            send(embedded, "my_signal")
            _, second = embedded.effects.wait_for(2, "mine")
        assert first["pid"] != second["pid"]

    def test_they_end_with_their_parent(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "my_signal")
            (effect,) = embedded.effects.wait_for(1, "mine")
            child = os.pidfd_open(effect["pid"])
            os.kill(worker.process.pid, signal.SIGKILL)
            ended, _, _ = select.select([child], [], [], 20)
            os.close(child)
        assert ended, "it is still there"

    def test_those_that_die_as_they_start_end_the_worker(self, embedded: Project) -> None:
        (embedded.folder / "broken.py").write_text(
            "from celery.signals import worker_process_init\nimport os\n"
            "from proj import celery_app as app\n"
            "@worker_process_init.connect(weak=False)\ndef die(**_): os._exit(9)\n"
        )
        code, output = refusal(embedded, "-c", "1", app="broken:app")
        assert code == 1
        assert output.count("has died with exit code 9") == 3


class TestTimeLimits:
    @pytest.mark.parametrize("options", [[], ["--threads", "2"]])
    def test_the_soft_one_tells_the_receiver(self, embedded: Project, gate: Gate, options: list[str]) -> None:
        with embedded.our_worker(options=["--soft-time-limit", "0.3", *options]) as worker:
            send(embedded, "limited")
            if options:
                # In a thread other than the main one it is told when it comes back from waiting.
                embedded.effects.wait_for(1, "takes_too_long")
                worker.process.wait_for(" ready.")
                gate.open()
            else:
                embedded.effects.wait_for(1, "was_told")
                worker.process.wait_for("1 receiver of shopapp.signals.limited failed")

    def test_the_hard_one_parks_the_message_and_ends_the_process(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker(options=["--time-limit", "0.5", "--stop-timeout", "1"]) as worker:
            send(embedded, "limited")
            worker.process.wait_for("took longer than")
            worker.process.wait_for("has ended with a receiver that did not")
            send(embedded, "my_signal")
            embedded.effects.wait_for(1, "mine")
        assert embedded.queues() == {"celery.dead": 1}


class TestStopping:
    # That it finishes what has begun is shown with both workers, in `test_workers.py`.

    @pytest.mark.parametrize("first", [None, signal.SIGTERM])
    def test_sigquit_and_a_second_signal_wait_for_nothing(
        self, embedded: Project, gate: Gate, first: signal.Signals | None
    ) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            if first is not None:
                os.kill(worker.process.pid, first)
                worker.process.wait_for("stopping when what has begun is done")
            os.kill(worker.process.pid, signal.SIGINT if first else signal.SIGQUIT)
            assert worker.process.wait(20) == 1
        assert embedded.queues() == {"celery": 1}, "it went back"

    def test_a_signal_that_is_sent_to_the_whole_group_counts_once(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker() as worker:
            send(embedded, "held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            worker.process.signal_group(signal.SIGTERM)
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.process.wait_for("stopping when what has begun is done")
            gate.open()
            assert worker.process.wait(20) == 0
        assert len(embedded.effects.seen("passed")) == 1

    def test_what_does_not_finish_in_time_goes_back(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker(options=["--stop-timeout", "0.5"]) as worker:
            send(embedded, "held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            assert worker.stop() == 1
        assert embedded.queues() == {"celery": 1}

    @pytest.mark.parametrize("threads", ["1", "2"])
    def test_a_receiver_that_never_returns_holds_up_nobody(self, embedded: Project, threads: str) -> None:
        """Not the stop either, without any time limit: its message goes back."""
        with embedded.our_worker(options=["--stop-timeout", "0.5", "--threads", threads]) as worker:
            send(embedded, "endless")
            embedded.effects.wait_for(1, "never_returns")
            start = time.monotonic()
            assert worker.stop() == 1
            # Itself, a second for its threads, and what a loaded machine takes.
            assert time.monotonic() - start < 0.5 + 5
            assert "has ended with a receiver that did not" in worker.output
        assert embedded.queues() == {"celery": 1}


class TestRights:
    """What a worker does whose user may not do everything on RabbitMQ."""

    @pytest.fixture
    def limited(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> Project:
        """A project whose user may not declare dead-letter queues."""
        project = make_project(rabbitmq_server)
        self.permit(project, r"^(?!.*\.dead$).*$")
        return project

    def permit(self, project: Project, configure: str) -> None:
        assert project.url is not None
        assert isinstance(project.broker, RabbitmqServer)
        vhost = project.broker.vhost(project.url)
        rights = {"configure": configure, "write": ".*", "read": ".*"}
        project.broker.manage("PUT", f"permissions/{vhost}/{USER}", rights)

    def test_a_dead_letter_queue_that_may_not_be_declared(self, limited: Project) -> None:
        """It says so, waits, and runs what it can; once the right is there, the message is parked."""
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker() as worker:
            said = worker.process.wait_for("could not be put into celery.dead, which is tried again")
            assert "celery.dead" in said
            assert "permission to configure" in said
            assert USER in said
            send(limited, "my_signal")
            limited.effects.wait_for(1, "mine")
            assert limited.broker is not None
            assert limited.queues() == {}, "the worker has it, and nobody else"
            self.permit(limited, ".*")
            worker.process.wait_for("is parked in celery.dead", timeout=60)
        assert limited.queues() == {"celery.dead": 1}

    def test_what_could_not_be_parked_goes_back(self, limited: Project) -> None:
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker(options=["--stop-timeout", "0.5"]) as worker:
            worker.process.wait_for("could not be put into celery.dead, which is tried again")
            worker.stop()
        assert limited.queues() == {"celery": 1}

    def test_one_that_somebody_else_has_declared(self, limited: Project) -> None:
        self.permit(limited, ".*")
        limited.run(
            """
            from kombu import Queue
            from proj.celery import app
            with app.connection_for_write() as connection, connection.channel() as channel:
                Queue("celery.dead", channel=channel).declare()
            """
        )
        self.permit(limited, r"^(?!.*\.dead$).*$")
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker() as worker:
            worker.process.wait_for("is parked in celery.dead")
        assert limited.queues() == {"celery.dead": 1}


class TestCompression:
    def test_what_the_senders_celery_has_compressed_is_read(self, make_project: MakeProject, broker: Broker) -> None:
        project = make_project(broker, settings="CELERY_TASK_COMPRESSION = 'gzip'")
        placed = "'web', order_id='x' * 10_000"
        send(project, "order_placed", placed)
        [message] = project.take("celery")
        assert message.headers["compression"] == "application/x-gzip"
        send(project, "order_placed", placed)
        project.run(
            """
            from proj import celery_app as app
            app.send_task("async_signals.propagate", ("shopapp.signals.order_placed", None), {"order_id": 2})
            app.tasks["celery.accumulate"].delay(1, 2)
            """
        )
        with project.our_worker() as worker:
            first, second = project.effects.wait_for(2, "ordered")
            worker.process.wait_for("celery.accumulate")
        assert first["arguments"] == {"order_id": "x" * 10_000}
        assert second["arguments"] == {"order_id": 2}
        assert project.queues() == {}

    def test_what_is_not_read_is_parked(self, embedded: Project) -> None:
        def headers(compression: str) -> dict[str, object]:
            return {"task": "async_signals.propagate", "id": str(uuid.uuid4()), "compression": compression}

        with embedded.our_worker() as worker:
            send(embedded, "my_signal")  # the queue is there
            embedded.effects.wait_for(1, "mine")
            bomb = zlib.compress(b"[" + b" " * (64 << 20))
            embedded.put("celery", bomb, headers("application/x-gzip"))
            worker.process.wait_for("is parked in celery.dead: its body is more than 33554432 bytes")
            embedded.put("celery", bz2.compress(b"[]"), headers("application/x-bz2"))
            worker.process.wait_for("is parked in celery.dead: its body is compressed as")
            embedded.put("celery", b"no zlib", headers("application/x-gzip"))
            worker.process.wait_for("is parked in celery.dead: its body is said to be compressed")
            send(embedded, "my_signal")
            embedded.effects.wait_for(2, "mine")
        assert embedded.queues() == {"celery.dead": 3}


class TestRefusals:
    @pytest.mark.parametrize(
        ("app", "word"),
        [
            ("nowhere", "there is no module 'nowhere'"),
            ("proj:nothing", "nothing"),
            ("proj.settings:SECRET_KEY", "is no Celery app"),
            ("run_snippet", "cannot be"),
        ],
    )
    def test_an_app_that_is_not_there(self, embedded: Project, app: str, word: str) -> None:
        code, output = refusal(embedded, app=app)
        assert code == 2
        assert word in output

    @pytest.mark.parametrize(
        ("flags", "word"),
        [
            (["--no-such-flag"], "--no-such-flag"),
            (["-P", "gevent"], "--threads"),
            (["-c", "0"], "-c"),
            (["-l", "loud"], "loud"),
        ],
    )
    def test_flags_that_are_not_there(self, embedded: Project, flags: list[str], word: str) -> None:
        code, output = refusal(embedded, *flags)
        assert code == 2
        assert word in output

    def test_no_app_at_all(self, embedded: Project) -> None:
        done = embedded.python("-m", "async_signals", "worker")
        assert done.returncode == 2
        assert "-A" in done.stderr

    @pytest.mark.parametrize(
        ("settings", "flags", "word"),
        [
            ("CELERY_TASK_CREATE_MISSING_QUEUES = False", ["-Q", "typo"], "there is no queue 'typo'"),
            ("CELERY_ACCEPT_CONTENT = ['json', 'pickle']", [], "accept_content"),
            ("CELERY_BROKER_URL = 'memory://'", [], "use `celery worker`"),
            ("CELERY_BROKER_URL = None", [], "set broker_url"),
            ("CELERY_BROKER_READ_URL = 'redis://elsewhere'", [], "use `celery worker`"),
        ],
    )
    def test_settings_that_cannot_be(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker, settings: str, flags: list[str], word: str
    ) -> None:
        code, output = refusal(make_project(sqlite_broker, settings=settings), *flags)
        assert code == 1
        assert word in output
        assert "Traceback" not in output

    @pytest.mark.parametrize(
        ("settings", "tries"),
        [("CELERY_BROKER_CONNECTION_MAX_RETRIES = 3", 3), ("CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = False", 1)],
    )
    def test_a_broker_that_is_not_there(self, make_project: MakeProject, settings: str, tries: int) -> None:
        project = make_project(None, url=f"redis://127.0.0.1:{free_port()}/0", settings=settings)
        code, output = refusal(project, "-c", "2")
        assert code == 1
        assert output.count("No connection to the broker") == tries
        assert "Traceback" not in output

    def test_a_wrong_password(self, make_project: MakeProject, tmp_path: Path) -> None:
        server = RedisServer(tmp_path, password="hush")
        try:
            url = server.url(1).replace("hush", "guess")
            code, output = refusal(make_project(None, url=url), "-c", "2")
        finally:
            server.stop()
        assert code == 1
        assert output.count("The broker will not have this worker") == 1
        assert "guess" not in output

    def test_a_queue_with_other_arguments(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> None:
        project = make_project(rabbitmq_server)
        with project.our_worker():
            pass
        settings = project.folder / "local_settings.py"
        settings.write_text(
            f"{settings.read_text()}\nfrom kombu import Queue\n"
            "CELERY_TASK_QUEUES = [Queue('celery', queue_arguments={'x-max-length': 5})]\n"
        )
        code, output = refusal(project)
        assert code == 1
        assert "x-max-length" in output


class TestDeadLetters:
    def test_they_are_listed_shown_sent_again_and_thrown_away(self, project: Project) -> None:
        project.run(
            "from async_signals import AsyncSignal\nfor number in range(3):\n"
            "    AsyncSignal(name=f'nobody.knows{number}').send('web', number=number)"
        )
        with project.our_worker() as worker:
            for number in range(3):
                worker.process.wait_for(f"is parked in celery.dead: this worker has no signal 'nobody.knows{number}'")

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
