"""A program under test: its own process group, its output kept, its readiness an event."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from servers.nursery import Child, Nursery

#: Below those that systems give to connections: none takes a port before the server comes that it was found for.
_PORTS = range(10_000, 32_000)
#: At most so many processes of pytest-xdist find ports at the same time, each its own.
_PROCESSES = 64


def free_port() -> int:
    """A TCP port that nobody listens on just now, and that no server of these tests is about to.

    A server listens seconds after it was told its port: meanwhile no other may be told the same.
    """
    for port in _ports():
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports never end")


@functools.cache
def _ports() -> Iterator[int]:
    """The ports of this process of the tests, in an order of chance; each comes again when all others were told."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = _PORTS[number % _PROCESSES :: _PROCESSES]
    return itertools.cycle(random.sample(mine, len(mine)))


#: Modules of the project's and of workers that may be forked from a Python that has imported what they import.
NURTURED = ("celery", "async_signals", "checker.sender", "hammer")
#: Words of their commands that ask for another start.
NOT_NURTURED = ("-P", "--pool")
#: One for all tests of this process.
nursery = functools.cache(Nursery)


def nurtured(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Child | None:
    """Forks a module's process, where that comes to the same as to start it."""
    python, *arguments = command
    if python != sys.executable or arguments[:1] != ["-m"] or arguments[1] not in NURTURED:
        return None
    if any(word.startswith(NOT_NURTURED) for word in arguments) or not nursery().takes(env, cwd):
        return None
    return nursery().start(*arguments[1:], env=env, cwd=cwd)


class Process:
    """Starts a program and follows what it prints.

    Arguments:
        command: the program and its arguments.
        env: its whole environment.
        cwd: the folder it runs in.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.name = Path(command[0]).name
        self._lines: list[str] = []
        self._printed = threading.Condition()
        self._ended = False
        # A group of its own, so that a kill reaches its children and a Ctrl-C at the terminal does not reach it.
        self._process: subprocess.Popen[str] | Child = nurtured(command, env, cwd) or subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed under the reader's hands by `kill`
            for line in self._process.stdout:
                with self._printed:
                    self._lines.append(line.rstrip("\n"))
                    self._printed.notify_all()
        with self._printed:
            self._ended = True
            self._printed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        with self._printed:
            return "\n".join(self._lines)

    def wait_for(self, text: str, *, timeout: float = 60, since: int = 0) -> str:
        """Waits until a line holding `text` is printed, counted from line `since` on, and returns that line."""

        def found() -> str | None:
            return next((line for line in self._lines[since:] if text in line), None)

        line = self._wait(lambda: found() is not None or self._ended, timeout) and found()
        if not line:
            how = "ended and never" if self._ended else f"has not in {timeout} s"
            raise AssertionError(f"{self.name} {how} printed {text!r}; it printed:\n{self.output}")
        return str(line)

    def _wait(self, happened: Callable[[], bool], timeout: float) -> bool:
        with self._printed:
            return self._printed.wait_for(happened, timeout)

    def running(self) -> bool:
        return self._process.poll() is None

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def pause(self) -> None:
        """Freezes it as it stands: its connections stay open and nothing answers."""
        self.signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal_group(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, children and all."""
        self.signal_group(signal.SIGKILL)
        self._finish(10)

    def wait(self, timeout: float) -> int:
        """Waits until it ends by itself, and returns its exit code."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 15) -> int:
        """Asks it to end, kills what is left after `timeout` seconds, and returns its exit code."""
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        self._finish(timeout)
        return int(self._process.returncode)

    def _finish(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        # Whatever the program left running belongs to the group still.
        self.signal_group(signal.SIGKILL)
        self._process.wait()
        self._reader.join(max(0.1, deadline - time.monotonic()))
