"""Django's own tests of its signals pass with AsyncSignal in the place of Signal, on the Django that is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import django
import pytest

ROOT = Path(__file__).parents[1]
RUN = Path(__file__).parent / "django_suites" / "run.py"
#: How many tests the suites hold at least; fewer ran means that they did not run.
AT_LEAST = {"dispatch": 15, "signals": 20}


@pytest.fixture(scope="module")
def source() -> Path:
    """Django's source distribution, of the version that is installed; its tests are not in the wheel."""
    cache = ROOT / "target" / "django-sources"
    folder = cache / f"django-{django.__version__}"
    if not (folder / "tests" / "runtests.py").exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--no-binary", ":all:", "--dest", str(cache), f"django=={django.__version__}"),
            ],
            check=True,
            timeout=200,
        )
        [archive] = cache.glob(f"[dD]jango-{django.__version__}.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(cache, filter="data")
            top = packed.getnames()[0].split("/")[0]
        if top != folder.name:
            (cache / top).rename(folder)
    return folder


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
