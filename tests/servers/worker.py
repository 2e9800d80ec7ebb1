"""A stock Celery worker of the test project, in processes of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from servers.process import Process

QUEUES = ("celery", "high_priority")


class Worker:
    """Starts `celery worker` on some queues and returns when it is ready.

    Arguments:
        folder: the project's folder.
        env: the whole environment, as the project has it.
        queues: the queues that it reads.
        options: more of the command's own options.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], queues: Sequence[str] = QUEUES, options: Sequence[str] = ()
    ) -> None:
        self._command = self.command(queues, options)
        self._folder, self._env = folder, env
        self.start()

    def command(self, queues: Sequence[str], options: Sequence[str]) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "--app", "proj", "worker", "--queues", ",".join(queues)),
            *("--concurrency", "1", "--loglevel", "INFO", "--without-gossip", "--without-mingle", *options),
        ]

    def start(self) -> None:
        """Starts it, again after a `kill` or a `stop`."""
        self.process = Process(self._command, env=self._env, cwd=self._folder)
        self.process.wait_for(" ready.")

    @property
    def output(self) -> str:
        return self.process.output

    def kill(self) -> None:
        """kill -9, pool and all."""
        self.process.kill()

    def stop(self) -> int:
        """A warm shutdown, as a deployment does it."""
        return self.process.stop()


class OurWorker(Worker):
    """`async-signals worker`, in place of Celery's."""

    def command(self, queues: Sequence[str], options: Sequence[str]) -> list[str]:
        return [
            *(sys.executable, "-m", "async_signals", "--app", "proj", "worker", "--queues", ",".join(queues)),
            *("--concurrency", "1", "--loglevel", "INFO", *options),
        ]
