"""Both workers, for tests that hold for either: Celery's own, and ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence

from servers.process import Process
from servers.project import Project
from servers.worker import QUEUES

KINDS = ("stock", "ours")

_COMMANDS = {
    "stock": ("celery", "--app", "proj", "worker", "--without-gossip", "--without-mingle"),
    "ours": ("async_signals", "worker", "--app", "proj"),
}


@contextlib.contextmanager
def worker(
    project: Project,
    kind: str,
    options: Sequence[str] = (),
    *,
    queues: Sequence[str] = QUEUES,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """A worker of this kind, ready, for as long as the block runs. `options` are those that both know."""
    command = [*_COMMANDS[kind], "--queues", ",".join(queues), "--concurrency", "1", "--loglevel", "INFO", *options]
    process = Process([sys.executable, "-m", *command], env={**project.env, **(env or {})}, cwd=project.folder)
    try:
        process.wait_for(" ready.")
        yield process
    finally:
        process.stop()
