"""Processes of the test project, forked from one that has imported Django and Celery already.

To import them takes most of the time of such a process. The nursery has done so; it has imported nothing of ours, read
no settings and runs nothing. What it forks gets an environment, a folder, a path, arguments and standard streams of its
own, leads a group of its own, runs a module as `python -m` does, and ends as any Python does.
"""

from __future__ import annotations

import atexit
import compileall
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

#: Modules of other people, none of which reads settings as it is imported.
IMPORTED = (
    "asyncio",
    "celery.app.amqp",
    "celery.app.log",
    "celery.app.task",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.consumer",
    "celery.worker.strategy",
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
#: What a Python finds in its environment as it starts, and the nursery's has not found: who asks for it is not forked.
STARTING = ("PYTHON", "LD_", "MALLOC_", "TZ", "LANG", "LC_")
#: But for these, which are brought about.
BROUGHT_ABOUT = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
#: How many bytes an answer has.
ANSWER = 12


class Child:
    """A process that the nursery forked, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: IO[str] | None, ended: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended, and returns its exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            told = os.read(self._ended, ANSWER)
            os.close(self._ended)
            assert len(told) == ANSWER, "the nursery has ended"
            self.returncode = int(told)
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """Runs modules in processes that are forked for them."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # Not by this file's path: beside it stands a `redis.py` that is not the client.
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=theirs, cwd=Path(__file__).parents[1]
            )
        self._turn = threading.Lock()
        self._settled = {name: value for name, value in os.environ.items() if name.startswith(STARTING)}
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    def takes(self, env: Mapping[str, str], cwd: Path) -> bool:
        """Whether a process with this environment and folder can be forked: nothing in them is for a Python's start."""
        wanted = {name: value for name, value in env.items() if name.startswith(STARTING)}
        differing = {name for name in {*wanted, *self._settled} if wanted.get(name) != self._settled.get(name)}
        return differing <= {*BROUGHT_ABOUT} and not (cwd / "sitecustomize.py").exists()

    def start(self, module: str, *arguments: str, env: Mapping[str, str], cwd: Path) -> Child:
        """Runs `python -m module arguments…` in a group of its own; what it prints is read from its `stdout`."""
        read, write = os.pipe()
        with open(write, "w") as printed, open(os.devnull) as nothing:
            return self._fork(
                [module, *arguments], env, cwd, (nothing, printed, printed), os.fdopen(read, errors="replace")
            )

    def run(
        self, module: str, *arguments: str, env: Mapping[str, str], cwd: Path, code: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python -m module arguments…` to its end.

        Arguments:
            env: Its whole environment.
            code: What it reads on its standard input.
            timeout: After how many seconds it is killed, and AssertionError raised.
        """
        with contextlib.ExitStack() as open_files:
            given, out, err = [open_files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
            given.write(code)
            given.seek(0)
            child = self._fork([module, *arguments], env, cwd, (given, out, err), None)
            try:
                returncode = child.wait(timeout)
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                child.wait(10)
                raise AssertionError(
                    f"{module} has not ended in {timeout} s; it printed:\n{_whole(out, err)}"
                ) from None
            return subprocess.CompletedProcess([module, *arguments], returncode, _whole(out), _whole(err))

    def _fork(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        streams: Sequence[IO[str]],
        stdout: IO[str] | None,
    ) -> Child:
        ended, tells = os.pipe()
        try:
            with self._turn, tempfile.TemporaryFile("w+") as request:
                json.dump({"command": list(command), "env": dict(env), "cwd": str(cwd)}, request)
                request.seek(0)
                socket.send_fds(self._socket, [b"!"], [file.fileno() for file in (request, *streams)] + [tells])
                self._socket.settimeout(60)
                answer = self._socket.recv(ANSWER)
        finally:
            os.close(tells)
        assert len(answer) == ANSWER, "the nursery has ended"
        return Child(int(answer), stdout, ended)


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
    # What each of its children would compile anew.
    tests = Path(__file__).parents[1]
    for folder in (tests / "project", tests.parent / "python"):
        compileall.compile_dir(folder, quiet=2)
    # No child looks through it for garbage, which would copy all of it.
    gc.collect()
    gc.freeze()
    # Who has ended is told by a signal, which comes as a byte.
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}  # where the end of a process is told, by its id
    while True:
        readable, _, _ = select.select([asked, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            bury(running)
        if asked not in readable:
            continue
        question, files, _, _ = socket.recv_fds(asked, 1, 5)
        if not question:
            return
        *streams, tells = files
        begun, begins = os.pipe()
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            asked.close()
            for file in (woken, wakes, begun, begins, tells, *running.values()):
                os.close(file)
            begin(*streams)
            return
        running[pid] = tells
        for file in (*streams, begins):
            os.close(file)
        os.read(begun, 1)  # its end: from here on it leads its group
        os.close(begun)
        asked.sendall(f"{pid:{ANSWER}}".encode())


def bury(running: dict[int, int]) -> None:
    """Tells the exit codes of all that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        tells = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            os.write(tells, f"{os.waitstatus_to_exitcode(status):{ANSWER}}".encode())
        os.close(tells)


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
    sys.path[:1] = [asked["cwd"], *filter(None, asked["env"].get("PYTHONPATH", "").split(os.pathsep))]
    # What Python reads in its environment as it starts, this one did not find there.
    sys.dont_write_bytecode = True
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)
    module, *arguments = asked["command"]
    sys.argv[1:] = arguments
    runpy._run_module_as_main(module)  # what `python -m` itself calls


if __name__ == "__main__":
    main()
