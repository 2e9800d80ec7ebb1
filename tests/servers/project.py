"""One test's copy of the test project: its settings, its database, its place on a broker, its processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import amqp
import kombu

from servers.effects import Effects
from servers.process import Process, nursery
from servers.sqlite import SqliteBroker
from servers.worker import QUEUES, Kind, Worker

SOURCE = Path(__file__).parents[1] / "project"
REPORT = "snippet-report: "

#: The properties of a message that are its sender's, and not of one delivery.
_REPLAYED = ("correlation_id", "reply_to", "delivery_mode", "priority", "expiration")
#: The databases as they are after migrating, by alias and whether our app is installed: once for all tests.
_migrated: dict[tuple[str, bool], bytes] = {}


class Broker(Protocol):
    """What the tests ask of a broker, of whichever kind."""

    def fresh_url(self) -> str:
        """A place on it that no other test uses."""

    def queues(self, url: str) -> dict[str, int]:
        """How many messages wait in which queue; empty queues are not told."""


@dataclass
class Report:
    """What came of a snippet."""

    result: Any
    error: dict[str, Any] | None
    warnings: list[dict[str, Any]]
    output: str
    returncode: int

    def warned(self, kind: str) -> list[dict[str, Any]]:
        return [warning for warning in self.warnings if kind in warning["kinds"]]

    def failed(self, kind: str) -> str:
        """The text of the exception, which must be of this kind."""
        assert self.error is not None, f"nothing was raised; the result is {self.result!r}"
        assert kind in self.error["kinds"], self.error["traceback"]
        return str(self.error["text"])


@dataclass
class Project:
    """A Django project on a broker of its own.

    Arguments:
        folder: an empty folder.
        url: the broker's URL, or None for a project that configures none.
        broker: who can tell what waits on it.
        installed: whether `async_signals` is in INSTALLED_APPS.
        settings: lines that its settings end with.
        transport_options: what kombu needs to read the queues back, where the settings say so too.
    """

    folder: Path
    url: str | None
    broker: Broker | None = None
    installed: bool = True
    settings: str = ""
    transport_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = ["from proj import settings as shared"]
        if self.installed:
            lines.append('INSTALLED_APPS = ["async_signals", *shared.INSTALLED_APPS]')
        if self.url:
            lines.append(f"CELERY_BROKER_URL = {self.url!r}")
        (self.folder / "local_settings.py").write_text("\n".join([*lines, dedent(self.settings), ""]))
        self.effects = Effects(self.folder / "effects")

    def close(self) -> None:
        self.effects.close()

    @property
    def env(self) -> dict[str, str]:
        """The environment of the project's processes."""
        foreign = ("CELERY", "DJANGO", "COLUMNS")  # the width of a terminal that the project's processes do not have
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        paths = [str(self.folder), str(SOURCE), str(SOURCE.parent), *filter(None, [inherited.get("PYTHONPATH")])]
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "proj.settings",
            "PROJECT_FOLDER": str(self.folder),
            "EFFECTS": str(self.effects.path),
            # A worker started as root says so at length.
            "C_FORCE_ROOT": "1",
        }

    def python(
        self, *arguments: str, code: str = "", env: Mapping[str, str] | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Runs the project's Python to its end."""
        env = {**self.env, **(env or {})}
        # What a test lets Python do as it starts, it does only in one that starts.
        if arguments[0] == "-m" and nursery().takes(env, self.folder):
            return nursery().run(*arguments[1:], env=env, cwd=self.folder, code=code, timeout=timeout)
        return subprocess.run(
            [sys.executable, *arguments],
            env=env,
            cwd=self.folder,
            input=code,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def manage(self, *arguments: str, timeout: float = 90) -> str:
        """Runs `manage.py`, which must succeed, and returns what it printed."""
        done = self.python("-m", "manage", *arguments, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def migrate(self) -> None:
        """Creates the tables, in both databases."""
        for database in ("default", "other"):
            file = self.folder / f"{database}.sqlite3"
            if (database, self.installed) not in _migrated:
                self.manage("migrate", "--run-syncdb", "--verbosity", "0", "--database", database)
                _migrated[database, self.installed] = file.read_bytes()
            file.write_bytes(_migrated[database, self.installed])

    def attempt(self, code: str, *, env: Mapping[str, str] | None = None, timeout: float = 90) -> Report:
        """Runs a user's code in a process of its own, and tells what came of it, exception included."""
        done = self.python("-m", "run_snippet", code=dedent(code), env=env, timeout=timeout)
        told = [line for line in done.stdout.splitlines() if line.startswith(REPORT)]
        assert told, f"the process ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return Report(
            **json.loads(told[-1].removeprefix(REPORT)),
            output=done.stdout + done.stderr,
            returncode=done.returncode,
        )

    def run(self, code: str, *, env: Mapping[str, str] | None = None, timeout: float = 90) -> Report:
        """Runs a user's code in a process of its own; it must neither raise nor warn, nor end badly."""
        report = self.attempt(code, env=env, timeout=timeout)
        assert report.error is None, report.error["traceback"] + report.output
        assert report.returncode == 0, report.output
        # kombu's use of SQLAlchemy is deprecated, and so is eventlet; that is not about us.
        warnings = [each for each in report.warnings if not each["kinds"][0].endswith("DeprecationWarning")]
        assert not warnings, warnings
        return report

    @contextlib.contextmanager
    def worker(
        self,
        queues: Sequence[str] = QUEUES,
        options: Sequence[str] = (),
        kind: Kind = "stock",
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Worker]:
        """A worker, a stock one unless `kind` says otherwise, for as long as the block runs."""
        worker = Worker(self.folder, {**self.env, **(env or {})}, queues, options, kind)
        try:
            yield worker
        finally:
            worker.stop()

    def send(self, name: str, arguments: str = "'web'", times: int = 1) -> None:
        """Sends a signal of the project's, so often; `arguments` are Python."""
        self.run(f"from shopapp import signals\nfor number in range({times}): signals.{name}.send({arguments})")

    def run_the_last(self, worker: Worker) -> None:
        """Sends a task after everything else, and waits until a worker with one slot has run it.

        It is acknowledged before it runs, and all that was sent before it is, too. A stock worker that is stopped as
        its last task has just ended does not acknowledge that one any more: the message goes back to its queue.
        """
        sent = self.run("from shopapp.tasks import last; result = last.delay().id")
        worker.process.wait_for(f"shopapp.tasks.last[{sent.result}] succeeded")

    @contextlib.contextmanager
    def our_worker(self, queues: Sequence[str] = QUEUES, options: Sequence[str] = ()) -> Iterator[Worker]:
        """`async-signals worker`, for as long as the block runs."""
        worker = Worker(self.folder, self.env, queues, options, "ours")
        try:
            yield worker
        finally:
            worker.stop()

    def refusal(self, *arguments: str, app: str = "proj") -> tuple[int, str]:
        """The exit code of a worker of ours that does not start, and what it says."""
        done = self.python("-m", "async_signals", "-A", app, "worker", "-l", "INFO", *arguments, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Starts the project's Python and leaves it running; whoever starts it stops it."""
        return Process([sys.executable, *arguments], env={**self.env, **(env or {})}, cwd=self.folder)

    def queues(self) -> dict[str, int]:
        """How many messages wait in which queue, on all of this project's broker."""
        assert self.url is not None
        assert self.broker is not None
        return self.broker.queues(self.url)

    def taken_arguments(self, name: str, queue: str = "celery") -> list[Any]:
        """Takes all messages out of a queue and returns what they carry by one name, in their order."""
        carried = [json.loads(message.body)[1] for message in self.take(queue)]
        return [arguments[name] for arguments in carried if name in arguments]

    def take(self, queue: str) -> list[kombu.Message]:
        """Takes all messages out of a queue, read as Celery reads them; a queue that is not there holds none."""
        assert self.url is not None
        if isinstance(self.broker, SqliteBroker) and queue not in self.queues():
            return []  # kombu would make the queue as it looks, and a worker may be doing so just now
        with (
            kombu.Connection(self.url, transport_options=dict(self.transport_options)) as connection,
            connection.channel() as channel,
        ):
            try:
                return list(iter(lambda: kombu.Queue(queue, channel=channel).get(no_ack=True, accept=["json"]), None))
            except amqp.exceptions.NotFound:
                return []
            finally:
                # kombu leaves a session over SQLAlchemy to the garbage collector, and with it one of few connections.
                if session := getattr(channel, "_session", None):
                    session.close()

    def replay(self, queue: str, order: Sequence[int]) -> None:
        """Puts the messages of a queue back, in this order and as often as they stand in it."""
        messages = self.take(queue)
        for message in [messages[number] for number in order]:
            properties = {key: value for key, value in message.properties.items() if key in _REPLAYED}
            self.put(queue, message.body, message.headers, message.content_type, message.content_encoding, **properties)

    def put(
        self,
        queue: str,
        body: bytes,
        headers: Mapping[str, Any],
        content_type: str = "application/json",
        content_encoding: str = "utf-8",
        **properties: Any,
    ) -> None:
        """Puts any bytes into a queue that is there, as a message with these headers."""
        assert self.url is not None
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            kombu.Producer(channel).publish(
                body,
                exchange="",
                routing_key=queue,
                content_type=content_type,
                content_encoding=content_encoding,
                headers=dict(headers),
                **properties,
            )
