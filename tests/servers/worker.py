"""A worker of the test project, of either kind, in processes of its own."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from servers.process import Process

QUEUES = ("celery", "high_priority")

#: A stock `celery worker`, or `async-signals worker`.
Kind = Literal["stock", "ours"]
KINDS: tuple[Kind, ...] = ("stock", "ours")

#: Within how many seconds a worker ends that has nothing to do. Celery's pool may wait for another 30.
ENDED: dict[Kind, float] = {"stock": 60.0, "ours": 15.0}

_PROGRAMS: dict[Kind, tuple[str, ...]] = {
    "stock": ("-m", "celery", "-A", "proj", "worker", "--without-gossip", "--without-mingle"),
    "ours": ("-m", "async_signals", "worker", "-A", "proj"),
}


class Worker:
    """Starts a worker on some queues and returns when it is ready.

    Arguments:
        folder: the project's folder.
        env: the whole environment, as the project has it.
        queues: the queues that it reads.
        options: more of the command's own options, which both kinds have in common.
        kind: which worker.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        queues: Sequence[str] = QUEUES,
        options: Sequence[str] = (),
        kind: Kind = "stock",
    ) -> None:
        self.kind = kind
        self._command = [sys.executable, *_PROGRAMS[kind], "-Q", ",".join(queues), "-c", "1", "-l", "INFO", *options]
        self._folder, self._env = folder, env
        self.start()

    def start(self) -> None:
        """Starts it, again after a `kill` or a `stop`."""
        # A name of its own each time: RabbitMQ holds a name's queue for remote control until it has noticed a death.
        named = [] if "--hostname" in self._command else ["--hostname", f"{self.kind}-{uuid.uuid4().hex[:8]}@%h"]
        self.process = Process([*self._command, *named], env=self._env, cwd=self._folder)
        try:
            self.process.wait_for(" ready.")
        except AssertionError:
            self.process.kill()
            raise

    @property
    def output(self) -> str:
        return self.process.output

    def kill(self) -> None:
        """kill -9, pool and all."""
        self.process.kill()

    def stop(self, timeout: float | None = None) -> int:
        """A warm shutdown, as a deployment does it; what is left after `timeout` seconds is killed."""
        return self.process.stop(ENDED[self.kind] if timeout is None else timeout)
