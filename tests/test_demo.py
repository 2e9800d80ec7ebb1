"""The shop's demo, run as `make demo` runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from servers.process import Process, free_port
from servers.project import Broker

DEMO = Path(__file__).parents[1] / "examples" / "shop" / "demo.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments], capture_output=True, text=True, timeout=150, check=False
    )


def test_all_effects_are_there_on_each_broker(broker: Broker) -> None:
    url = broker.fresh_url()
    done = run("--json", "--no-rates", "--broker", url)
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(done.stdout)
    assert account["ok"]
    assert account["missing"] == []
    assert {run["pid"] for run in account["runs"] if not run["message"]} == {account["site"]["pid"]}
    assert broker.queues(url) == {}


@pytest.mark.parametrize("worker", ["async-signals", "celery"])
def test_either_worker_runs_the_receivers(worker: str, sqlite_broker: Broker) -> None:
    done = run("--json", "--no-rates", "--worker", worker, "--broker", sqlite_broker.fresh_url())
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(done.stdout)
    assert account["ok"]
    assert account["worker"]["command"].startswith(worker)


def test_the_account_is_plain_where_there_is_no_terminal_and_shows_both_rates() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "effects are there" in done.stdout
    assert re.search(r"^  async-signals +[\d,]+ +[\d.]+ s +[\d,]+ +\d+ x$", done.stdout, re.MULTILINE)
    assert re.search(r"^  celery +\d+ +[\d.]+ s +\d+ +1 x$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout + done.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--timeout", "0", "--no-rates"]
    demo = Process(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, cwd=tmp_path)
    try:
        worker = int(demo.wait_for("  worker ", timeout=150).rpartition("(process ")[2].rstrip(")"))
        os.killpg(worker, signal.SIGSTOP)  # before the first order is placed: no receiver runs
        demo.wait_for("effects are missing", timeout=150)
        demo.wait_for("order 4: send_confirmation ran")
        os.killpg(worker, signal.SIGCONT)
        demo.wait_for("The end of the worker's log")
        assert demo.wait(timeout=60) == 1
    finally:
        demo.stop()


def test_a_broker_that_is_not_there_is_said_at_once() -> None:
    done = run("--broker", f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    assert "the worker cannot start" in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_shop_stays_open_until_it_is_told_to_close(tmp_path: Path, number: signal.Signals) -> None:
    demo = Process(
        [sys.executable, str(DEMO), "--serve", "--no-rates"],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
    )
    try:
        demo.wait_for("The shop is open at", timeout=150)
        children = [int(pid) for pid in re.findall(r"\(process (\d+)\)", demo.output)]
        assert len(children) == 2
        os.kill(demo.pid, number)
        demo.wait_for("Closed.")
    finally:
        assert demo.stop(timeout=30) == 0
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.killpg(child, 0)  # each led a group of its own, and nobody of it is left
    assert list(tmp_path.iterdir()) == []
