"""What a test of a fault holds: a project with the checker's senders and receivers, and its books."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from checker.journal import Line, Reader
from checker.verdict import Books, Verdict
from servers.eventually import eventually
from servers.process import Process
from servers.project import Project
from servers.worker import Kind, Worker

QUEUE = "checked"
#: How many of the last effects a trial remembers word for word; the books count them all.
REMEMBERED = 20_000
#: The deadline of the checker's sends, in seconds.
PUBLISH_TIMEOUT = 2.0


def settings(*apps: str, more: str = "", **options: Any) -> str:
    """The settings of a project that the checker uses.

    Arguments:
        apps: Receivers beside those of `receivers.py`.
        more: Lines of settings.
        options: `ASYNC_SIGNALS`.
    """
    installed = ["checker", "checker.receivers", *apps]
    return "\n".join(
        [
            f"INSTALLED_APPS = [*INSTALLED_APPS, *{installed!r}]",
            f"ASYNC_SIGNALS = { ({'publish_timeout': PUBLISH_TIMEOUT} | options)!r}",
            more,
        ]
    )


class Trial:
    """One fault and what came of it.

    Arguments:
        project: Made with `settings()`.
        title: What is done to whom, for the report.
    """

    def __init__(self, project: Project, title: str) -> None:
        self.project = project
        self.title = title
        self.books = Books()
        self.gate = project.folder / "gate"
        self._sends = Reader(project.folder / "sends.jsonl")
        self._effects = Reader(project.folder / "effects.jsonl")
        #: What receivers wrote down, in the order in which they did.
        self.effects: deque[Line] = deque(maxlen=REMEMBERED)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._sender: Process | None = None

    # Sending.

    def send(self, signal: str, count: int = 1, *, options: Mapping[str, Any] | None = None, **named: Any) -> list[str]:
        """Sends from a process that stays for the trial, and returns the tokens in their order.

        Arguments:
            signal: One of `signals.py`.
            options: As `AsyncSignal.options` takes them.
            named: The signal's arguments.
        """
        commands = self.project.folder / "commands"
        if self._sender is None:
            os.mkfifo(commands)
            # Open for both ends: nobody waits for the other to come.
            self._commands = os.open(commands, os.O_RDWR)
            self._sender = self.project.start("-m", "checker.sender", "--commands", str(commands))
        printed = len(self._sender.output.splitlines())
        tokens = [uuid.uuid4().hex for _ in range(count)]
        command = {"signal": signal, "tokens": tokens, "options": dict(options or {}), "named": named}
        os.write(self._commands, json.dumps(command).encode() + b"\n")
        self._sender.wait_for("sent", since=printed)
        return tokens

    def close(self) -> None:
        """Ends what is left of the trial."""
        self.open_gate()
        if self._sender is not None:
            self._sender.kill()
            os.close(self._commands)

    @contextlib.contextmanager
    def load(self, signal: str = "heard", threads: int = 2, rate: float | None = None) -> Iterator[Process]:
        """Sends from a process of its own for as long as the block runs."""
        options = ["--rate", str(rate)] if rate else []
        sender = self.project.start("-m", "checker.sender", signal, "--threads", str(threads), *options)
        try:
            sender.wait_for("sending")
            yield sender
        finally:
            code = sender.stop(timeout=30)
        assert code == 0, sender.output

    # Receiving.

    @contextlib.contextmanager
    def worker(self, kind: Kind, *options: str, name: str = "", queues: Sequence[str] = (QUEUE,)) -> Iterator[Worker]:
        """A worker on the checker's queue for as long as the block runs."""
        worker = self.start_worker(kind, *options, name=name, queues=queues)
        try:
            yield worker
        finally:
            worker.kill()  # the trial is over, and a kill is quick

    def start_worker(
        self,
        kind: Kind,
        *options: str,
        name: str = "",
        queues: Sequence[str] = (QUEUE,),
        env: Mapping[str, str] | None = None,
    ) -> Worker:
        """Starts a worker that whoever asked for it stops."""
        env = {**self.project.env, "CHECKER_WORKER": name or kind, **(env or {})}
        return Worker(self.project.folder, env, queues, options, kind=kind)

    def close_gate(self) -> None:
        """Lets receivers of `gated` and `single` wait, from now on."""
        os.mkfifo(self.gate)

    def open_gate(self) -> None:
        """Lets all go that wait, and all that come later."""
        with contextlib.suppress(FileNotFoundError):
            # Open for both, so that nobody is waited for; gone before it is closed, so that nobody waits anew.
            descriptor = os.open(self.gate, os.O_RDWR)
            self.gate.unlink()
            os.close(descriptor)

    # Looking.

    def read(self) -> Books:
        """The books, with what has been written down since."""
        self.books.sent(self._sends.new_lines())
        new = self._effects.new_lines()
        self.effects += new
        self._counts.update((line["receiver"], line["event"]) for line in new)
        self.books.ran(new)
        return self.books

    def seen(self, receiver: str, event: str = "done", token: str | None = None) -> list[Line]:
        """What a receiver wrote down so far."""
        self.read()
        return [
            line
            for line in self.effects
            if (line["receiver"], line["event"]) == (receiver, event) and token in {None, line["token"]}
        ]

    def count(self, receiver: str, event: str = "done", token: str | None = None) -> int:
        """How often a receiver wrote something down so far."""
        if token is not None:
            return len(self.seen(receiver, event, token))
        self.read()
        return self._counts[receiver, event]

    def wait_for(
        self, receiver: str, count: int = 1, event: str = "done", *, token: str | None = None, timeout: float = 60
    ) -> list[Line]:
        """Waits until a receiver wrote something down so many times."""
        eventually(
            lambda: self.count(receiver, event, token) >= count,
            lambda: f"{count} × {receiver} {event}; seen: {list(self.effects)[-20:]}",
            timeout=timeout,
        )
        return self.seen(receiver, event, token)

    def dead(self, queue: str = QUEUE) -> dict[str, str]:
        """Takes what is dead-lettered out of `<queue>.dead` into the books: token to the kind of reason."""
        for message in self.project.take(f"{queue}.dead"):
            kind = str(message.headers["async_signals"]["parked"]["kind"])
            self.books.dead[message.decode()[1]["token"]] = kind
        return self.books.dead

    def drained(self, *, timeout: float = 60) -> bool:
        """Waits until all that was accepted ran or is dead-lettered; False where that does not come about in time."""

        def done() -> bool:
            return not self.read().missing() or (bool(self.dead()) and not self.books.missing())

        with contextlib.suppress(AssertionError):
            eventually(done, lambda: "", timeout=timeout)
        return done()

    def verdict(self, **notes: object) -> Verdict:
        """Judges what is in the books by now, and prints the report."""
        self.read()
        self.dead()
        verdict = Verdict.of(self.title, self.books, PUBLISH_TIMEOUT, **notes)
        print(verdict, flush=True)
        return verdict


#: `make_trial(broker, title, *apps, more="", **options)`, as `settings()` has them.
MakeTrial = Callable[..., Trial]
