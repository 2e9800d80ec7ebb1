"""Django's own tests of its signals pass with AsyncSignal in the place of Signal, on the Django that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_suites.source import fetch

RUN = Path(__file__).parent / "django_suites" / "run.py"
#: How many tests the suites hold at least; fewer ran means that they did not run.
AT_LEAST = {"dispatch": 15, "signals": 20}


@pytest.fixture(scope="module")
def source() -> Path:
    """Django's own tests."""
    return fetch()


@pytest.mark.parametrize("suite", ["dispatch", "signals"])
def test_suite(source: Path, suite: str) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), str(source), suite],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=source / "tests",
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    ran = re.search(r"^Ran (\d+) tests?", output, re.MULTILINE)
    assert ran, output
    assert int(ran[1]) >= AT_LEAST[suite], output
