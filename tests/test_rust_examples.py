"""The Rust crate's examples, run as its documents say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from servers.peer import prebuilt

ROOT = Path(__file__).parents[1]
#: The first run builds the crate and everything that it needs.
BUILDING = 900

pytestmark = pytest.mark.timeout(BUILDING + 60)

SAYINGS = {
    "quickstart": ["order 5 placed, which is Celery task", "order 5 reserved, in try 2"],
    "fan_out": ["invoice: order 3", "reserve: order 2, in try 2", "email:   order 4, sent"],
}


@pytest.mark.parametrize("example", SAYINGS)
def test_an_example_runs_to_its_end(example: str) -> None:
    cargo = ["cargo", "run", "--locked", "--quiet", "--package", "celery-async-signals", "--example", example]
    command = [found] if (found := prebuilt(example)) else cargo
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILDING, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for saying in SAYINGS[example]:
        assert saying in done.stdout
    assert done.stdout.splitlines()[-1] == "worker: stopped, with nothing left to do"


def test_every_example_is_run() -> None:
    files = (ROOT / "crates" / "async-signals" / "examples").glob("*.rs")
    assert {file.stem for file in files} == set(SAYINGS)
