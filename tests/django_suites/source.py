"""Django's source distribution, of the version that is installed: its tests are not in the wheel.

Run as a program it fetches it, for tests that run where there is no network.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django

CACHE = Path(__file__).parents[2] / "target" / "django-sources"


def fetch() -> Path:
    """Where it is unpacked; downloaded by pip, unless it is there."""
    folder = CACHE / f"django-{django.__version__}"
    if not (folder / "tests" / "runtests.py").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--no-binary", ":all:", "--dest", str(CACHE), f"django=={django.__version__}"),
            ],
            check=True,
            timeout=200,
        )
        [archive] = CACHE.glob(f"[dD]jango-{django.__version__}.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(CACHE, filter="data")
            top = packed.getnames()[0].split("/")[0]
        if top != folder.name:
            (CACHE / top).rename(folder)
    return folder


if __name__ == "__main__":
    fetch()
