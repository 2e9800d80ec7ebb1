"""The site and the worker as child processes that never outlive the demo."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

#: How often a file or a process is looked at, in seconds.
POLL = 0.05
#: How long a process has to leave by itself when it is asked to, in seconds.
GRACE = 10.0


class ProcessFailed(Exception):
    """A child process died or never became ready. ``log`` is the end of what it said."""

    def __init__(self, what: str, log: str = "") -> None:
        super().__init__(what)
        self.log = log


@dataclass
class Child:
    """One process with a process group and a log file of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process's id, which is its group's id too."""
        return self.process.pid

    def tail(self, lines: int = 25) -> str:
        """The last lines of the log."""
        return "\n".join(self._text().splitlines()[-lines:])

    def check(self) -> None:
        """Raise :class:`ProcessFailed` if the process is gone."""
        code = self.process.poll()
        if code is not None:
            raise ProcessFailed(f"the {self.name} ended by itself (exit code {code})", self.tail())

    def wait_for(self, pattern: str, timeout: float, hopeless: str = r"$.") -> re.Match[str]:
        """Wait until ``pattern`` stands in the log, and no longer than until ``hopeless`` does."""
        deadline = time.monotonic() + timeout
        while True:
            if found := re.search(pattern, self._text()):
                return found
            self.check()
            if re.search(hopeless, self._text()):
                raise ProcessFailed(f"the {self.name} cannot start", self.tail())
            if time.monotonic() > deadline:
                raise ProcessFailed(f"the {self.name} was not ready within {timeout:g} s", self.tail())
            time.sleep(POLL)

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to this one's group."""
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False

    def stop(self) -> None:
        """Ask it to leave, then make sure that nobody of its group stays."""
        try:
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Nobody may be left by now (macOS says "permission" of a group of zombies).
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()

    def _text(self) -> str:
        return self.log.read_text(errors="replace")


@final
@dataclass
class Household:
    """All children, stopped in reverse order when the ``with`` block ends."""

    directory: Path
    project: Path
    environment: Mapping[str, str]
    children: list[Child] = field(default_factory=list)

    def __enter__(self) -> "Household":
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Stopping is bounded in time; a second Ctrl-C must not leave half of it undone.
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = [signal.signal(each, signal.SIG_IGN) for each in signals]
        try:
            while self.children:
                self.children.pop().stop()
        finally:
            for each, handler in zip(signals, handlers, strict=True):
                signal.signal(each, handler)

    def start(self, name: str, command: Sequence[str]) -> Child:
        """Start a process in a group of its own, so that Ctrl-C reaches only the demo."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def manage(self, *arguments: str, timeout: float = 60.0) -> None:
        """Run one of Django's commands to its end."""
        child = self.start(arguments[0], [sys.executable, "manage.py", *arguments])
        try:
            code = child.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"manage.py {arguments[0]} took more than {timeout:g} s", child.tail()) from None
        if code != 0:
            raise ProcessFailed(f"manage.py {arguments[0]} failed", child.tail())
        self.children.remove(child)

    def stop(self, child: Child) -> None:
        """Stop one of them."""
        child.stop()
        self.children.remove(child)

    def check(self) -> None:
        """Raise :class:`ProcessFailed` if any of them is gone."""
        for child in self.children:
            child.check()

    def wait_until(self, done: Callable[[], bool], timeout: float) -> bool:
        """Ask ``done`` again and again; ``False`` when the time is over."""
        deadline = time.monotonic() + timeout
        while not done():
            self.check()
            if time.monotonic() > deadline:
                return False
            time.sleep(2 * POLL)
        return True
