"""`async-signals worker`, as its users run it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeProject
from servers.project import Project
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker


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


class TestRunning:
    def test_a_signal_reaches_its_receivers(self, project: Project) -> None:
        project.send("order_placed", "'web', order_id=number", times=3)
        with project.our_worker() as worker:
            effects = project.effects.wait_for(3, "ordered")
            project.send("order_placed", "'web', order_id=7")
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
            embedded.send("troubled")
            embedded.effects.wait_for(1, "after_the_trouble")
            worker.process.wait_for("2 receivers of shopapp.signals.troubled failed")
            assert "RuntimeError: the printer is on fire" in worker.output
        assert embedded.queues() == {}

    def test_what_nobody_knows_is_dead_lettered(self, embedded: Project) -> None:
        embedded.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with embedded.our_worker() as worker:
            worker.process.wait_for("is dead-lettered to celery.dead: this worker has no signal 'nobody.knows'")
        assert embedded.queues() == {"celery.dead": 1}

    def test_threads_run_receivers_side_by_side(self, embedded: Project, gate: Gate) -> None:
        embedded.send("held_up", "'web', number=number", times=3)
        with embedded.our_worker(options=["--threads", "3"]):
            waiting = embedded.effects.wait_for(3, "waits_at_the_gate")
            gate.open()
            embedded.effects.wait_for(3, "passed")
        assert len({effect["pid"] for effect in waiting}) == 1
        assert len({effect["arguments"]["thread"] for effect in waiting}) == 3

    def test_coroutines_share_a_loop_and_ask_the_database_over_the_threads_connection(self, embedded: Project) -> None:
        embedded.migrate()
        with embedded.our_worker():
            embedded.send("awaited", times=3)
            awaited = [effect["arguments"] for effect in embedded.effects.wait_for(3, "awaits")]
        assert [effect["created"] for effect in awaited] == [True] * 3
        assert len({effect["loop"] for effect in awaited}) == 1
        before = embedded.effects.seen("comes_before")
        assert [effect["arguments"]["was_open"] for effect in before] == [False] * 3, "closed after each message"

    def test_connections_are_closed_after_each_message(self, embedded: Project) -> None:
        with embedded.our_worker():
            embedded.send("touching", times=3)
            touched = embedded.effects.wait_for(3, "asks_the_database")
        assert [effect["arguments"]["was_open"] for effect in touched] == [False] * 3

    def test_connections_are_kept_for_as_many_messages_as_celery_keeps_them(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker
    ) -> None:
        project = make_project(sqlite_broker, settings="CELERY_DB_REUSE_MAX = 2\nCELERY_CELERY_DB_REUSE_MAX = 2")
        with project.our_worker():
            project.send("touching", times=4)
            touched = project.effects.wait_for(4, "asks_the_database")
        assert [effect["arguments"]["was_open"] for effect in touched] == [False, True, False, True]


class TestProcesses:
    def test_one_that_is_killed_is_replaced_and_its_message_runs_again(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker() as worker:
            embedded.send("held_up")
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
    def test_what_kills_its_process_is_dead_lettered_after_five_deliveries(self, embedded: Project) -> None:
        """Unless a setting says another number, as `test_faults_workers.py` does on each broker."""
        with embedded.our_worker() as worker:
            embedded.send("poisonous")
            worker.process.wait_for("is dead-lettered to celery.dead", timeout=120)
            embedded.send("my_signal")
            embedded.effects.wait_for(1, "mine")
        assert len(embedded.effects.seen("kills_its_process")) == 5
        assert embedded.queues() == {"celery.dead": 1}

    def test_a_receiver_that_exits_ends_its_process_alone(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            embedded.send("ending")
            worker.process.wait_for("A receiver ended its process: SystemExit(3)")
            worker.process.wait_for("is dead-lettered to celery.dead", timeout=120)
            embedded.send("my_signal")
            embedded.effects.wait_for(1, "mine")

    def test_one_is_replaced_after_so_many_messages(self, embedded: Project) -> None:
        with embedded.our_worker(options=["--max-tasks-per-child", "2", "--prefetch-multiplier", "1"]):
            for number in range(5):
                embedded.send("order_placed", f"'web', order_id={number}")
                embedded.effects.wait_for(number + 1, "ordered")
            ordered = embedded.effects.seen("ordered")
        pids = [effect["pid"] for effect in ordered]
        assert pids[0] == pids[1]
        assert pids[2] == pids[3]
        assert len(set(pids)) == 3

    def test_sighup_replaces_them(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            embedded.send("my_signal")
            (first,) = embedded.effects.wait_for(1, "mine")
            os.kill(worker.process.pid, signal.SIGHUP)
            worker.process.wait_for("has done its part; another one takes its place")
            embedded.send("my_signal")
            _, second = embedded.effects.wait_for(2, "mine")
        assert first["pid"] != second["pid"]

    def test_they_end_with_their_parent(self, embedded: Project) -> None:
        with embedded.our_worker() as worker:
            embedded.send("my_signal")
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
        code, output = embedded.refusal("-c", "1", app="broken:app")
        assert code == 1
        assert output.count("has died with exit code 9") == 3


class TestTimeLimits:
    @pytest.mark.parametrize("options", [[], ["--threads", "2"]])
    def test_the_soft_one_tells_the_receiver(self, embedded: Project, gate: Gate, options: list[str]) -> None:
        with embedded.our_worker(options=["--soft-time-limit", "0.3", *options]) as worker:
            embedded.send("limited")
            if options:
                # In a thread other than the main one it is told when it comes back from waiting.
                embedded.effects.wait_for(1, "takes_too_long")
                worker.process.wait_for(" ready.")
                gate.open()
            else:
                embedded.effects.wait_for(1, "was_told")
                worker.process.wait_for("1 receiver of shopapp.signals.limited failed")

    def test_the_hard_one_dead_letters_the_message_and_ends_the_process(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker(options=["--time-limit", "0.5", "--stop-timeout", "1"]) as worker:
            embedded.send("limited")
            worker.process.wait_for("took longer than")
            worker.process.wait_for("has ended with a receiver that did not")
            embedded.send("my_signal")
            embedded.effects.wait_for(1, "mine")
        assert embedded.queues() == {"celery.dead": 1}


class TestStopping:
    # That it finishes what has begun is shown with both workers, in `test_workers.py`.

    @pytest.mark.parametrize("first", [None, signal.SIGTERM])
    def test_sigquit_and_a_second_signal_wait_for_nothing(
        self, embedded: Project, gate: Gate, first: signal.Signals | None
    ) -> None:
        with embedded.our_worker() as worker:
            embedded.send("held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            if first is not None:
                os.kill(worker.process.pid, first)
                worker.process.wait_for("stopping when what has begun is done")
            os.kill(worker.process.pid, signal.SIGINT if first else signal.SIGQUIT)
            assert worker.process.wait(20) == 1
        assert embedded.queues() == {"celery": 1}, "it went back"

    def test_a_signal_that_is_sent_to_the_whole_group_counts_once(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker() as worker:
            embedded.send("held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            worker.process.signal_group(signal.SIGTERM)
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.process.wait_for("stopping when what has begun is done")
            gate.open()
            assert worker.process.wait(20) == 0
        assert len(embedded.effects.seen("passed")) == 1

    def test_what_does_not_finish_in_time_goes_back(self, embedded: Project, gate: Gate) -> None:
        with embedded.our_worker(options=["--stop-timeout", "0.5"]) as worker:
            embedded.send("held_up")
            embedded.effects.wait_for(1, "waits_at_the_gate")
            assert worker.stop() == 1
        assert embedded.queues() == {"celery": 1}

    @pytest.mark.parametrize("threads", ["1", "2"])
    def test_a_receiver_that_never_returns_holds_up_nobody(self, embedded: Project, threads: str) -> None:
        """Not the stop either, without any time limit: its message goes back."""
        with embedded.our_worker(options=["--stop-timeout", "0.5", "--threads", threads]) as worker:
            embedded.send("endless")
            embedded.effects.wait_for(1, "never_returns")
            start = time.monotonic()
            assert worker.stop() == 1
            # Itself, a second for its threads, and what a loaded machine takes.
            assert time.monotonic() - start < 0.5 + 5
            assert "has ended with a receiver that did not" in worker.output
        assert embedded.queues() == {"celery": 1}
