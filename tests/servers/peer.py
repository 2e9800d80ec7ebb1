"""The Rust program of the tests: it sends what Django receives, and its worker receives what Django sends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from servers.process import Process
from servers.project import Project

ROOT = Path(__file__).parents[2]
PACKAGE = "async-signals-peer"


def prebuilt(name: str) -> str | None:
    """A program in Rust that is built already: TESTS_PROGRAMS names the folder, for where there is no cargo."""
    folder = os.environ.get("TESTS_PROGRAMS")
    return str(Path(folder) / name) if folder else None


def buildable() -> str | None:
    """What builds the programs, or holds them; None where there is neither."""
    return os.environ.get("TESTS_PROGRAMS") or shutil.which("cargo")


class Peer:
    """Builds the program, which takes a moment only when it is built already (`make build-peer`)."""

    def __init__(self) -> None:
        if found := prebuilt(PACKAGE):
            self.program = found
            return
        done = subprocess.run(
            ["cargo", "build", "--locked", "--message-format=json-render-diagnostics", "-p", PACKAGE],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        built = [json.loads(line) for line in done.stdout.splitlines()]
        [self.program] = [artifact["executable"] for artifact in built if artifact.get("executable")]

    def send(self, project: Project, *queues: str) -> Any:
        """Sends everything once to each queue, and returns what the values are."""
        return json.loads(self._run("send", project.url, *queues))

    def shake(self, project: Project, queue: str, fails: str, count: int) -> None:
        """Sends signals whose receiver fails in one language, and one whose receivers do nothing but fail."""
        self._run("shake", project.url, queue, fails, str(count))

    def count(self, project: Project, queue: str, numbers: range) -> None:
        """Sends a numbered signal for each of the numbers."""
        self._run("count", project.url, queue, str(numbers.start), str(numbers.stop))

    def _run(self, command: str, url: str | None, *arguments: str) -> str:
        assert url is not None
        done = subprocess.run(
            [self.program, command, url, *arguments], capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def worker(self, project: Project, queues: Sequence[str]) -> Iterator[Process]:
        """A worker whose receivers write into the project's effects, for as long as the block runs."""
        assert project.url is not None
        env = {**os.environ, "EFFECTS": str(project.effects.path), "WORKER": "rust"}
        process = Process([self.program, "receive", project.url, *queues], env=env, cwd=project.folder)
        try:
            process.wait_for(" ready.")
            yield process
            assert process.stop() == 0, process.output
        finally:
            process.stop()
