"""Short processes of the test project, forked from one that has imported Django and Celery already.

To import them takes most of the time of such a process. The nursery has done so; it has imported nothing of ours, read
no settings and runs nothing. What it forks gets an environment, a folder, a path and standard streams of its own, runs
a module as `python -m` does, and ends as any Python does.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

#: Modules of other people, none of which reads settings as it is imported.
IMPORTED = (
    "asyncio",
    "celery.app.amqp",
    "celery.app.task",
    "celery.fixups.django",
    "celery.loaders.app",
    "django.core.management",
    "django.core.serializers.json",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.http",
    "django.urls",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "kombu.transport.sqlalchemy",
)
#: How many bytes an answer has.
ANSWER = 12


class Nursery:
    """Runs modules in processes that are forked for them, one after the other."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # Not by this file's path: beside it stands a `redis.py` that is not the client.
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=theirs, cwd=Path(__file__).parents[1]
            )
        self._turn = threading.Lock()
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    def run(
        self, module: str, *, env: Mapping[str, str], cwd: Path, code: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python -m module` to its end.

        Arguments:
            env: Its whole environment.
            code: What it reads on its standard input.
            timeout: After how many seconds it is killed, and AssertionError raised.
        """
        with self._turn, contextlib.ExitStack() as open_files:
            request, given, out, err = [open_files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(4)]
            json.dump({"module": module, "env": dict(env), "cwd": str(cwd)}, request)
            given.write(code)
            for file in (request, given):
                file.seek(0)
            socket.send_fds(self._socket, [b"!"], [file.fileno() for file in (request, given, out, err)])
            pid = self._answer(60)
            try:
                returncode = self._answer(timeout)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                returncode = self._answer(10)
                raise AssertionError(
                    f"{module} has not ended in {timeout} s; it printed:\n{_whole(out, err)}"
                ) from None
            return subprocess.CompletedProcess([module], returncode, _whole(out), _whole(err))

    def _answer(self, timeout: float) -> int:
        self._socket.settimeout(timeout)
        answer = self._socket.recv(ANSWER)
        assert len(answer) == ANSWER, "the nursery has ended"
        return int(answer)


def _whole(*files: IO[str]) -> str:
    """All that is in files by now."""
    for file in files:
        file.seek(0)
    return "".join(file.read() for file in files)


def main() -> None:
    """The nursery itself: its standard input is the socket."""
    asked = socket.socket(fileno=os.dup(0))
    for name in IMPORTED:
        importlib.import_module(name)
    while True:
        question, files, _, _ = socket.recv_fds(asked, 1, 4)
        if not question:
            return
        pid = os.fork()
        if not pid:
            asked.close()
            begin(*files)
            return
        for file in files:
            os.close(file)
        asked.sendall(f"{pid:{ANSWER}}".encode())
        asked.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):{ANSWER}}".encode())


def begin(request: int, *streams: int) -> None:
    """Becomes what was asked for, and runs it."""
    with open(request, encoding="utf-8") as file:
        asked = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    # The first is the folder that the nursery was started in.
    sys.path[:1] = [asked["cwd"], *asked["env"]["PYTHONPATH"].split(os.pathsep)]
    # What Python reads in its environment as it starts, this one did not find there.
    sys.dont_write_bytecode = True
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    runpy._run_module_as_main(asked["module"])  # what `python -m` itself calls


if __name__ == "__main__":
    main()
