"""A private Redis (or Valkey) on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from redis import Redis

from servers.process import Process, free_port

PROGRAMS = ("redis-server", "valkey-server")
DATABASES = 4096


def program() -> str | None:
    """The server's program, if it is installed: the one that TESTS_REDIS names, else whichever there is."""
    if wanted := os.environ.get("TESTS_REDIS"):
        return shutil.which(wanted)
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class RedisServer:
    """Starts the server; `options` are its own, such as `["--appendonly", "yes"]`."""

    def __init__(self, folder: Path, options: Sequence[str] = (), *, password: str | None = None) -> None:
        found = program()
        assert found is not None, "ask for the `redis_server` fixture, which skips where no server is installed"
        self.folder = folder
        self.port = free_port()
        self.password = password
        self._next_database = 0
        self._command = [
            found,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--databases", str(DATABASES)),
            *("--save", "", *options),
            *(("--requirepass", password) if password else ()),
        ]
        self.start()

    def start(self) -> None:
        """Starts it, again after a `kill`, on the same port and data."""
        self.process = Process(self._command, env={"PATH": "/usr/bin:/bin"}, cwd=self.folder)
        self.process.wait_for("eady to accept connections")

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.stop()

    def fresh_url(self) -> str:
        """The URL of a database that no test has used."""
        self._next_database += 1
        assert self._next_database < DATABASES
        return self.url(self._next_database)

    def url(self, database: int = 0, *, scheme: str = "redis") -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"{scheme}://{secret}127.0.0.1:{self.port}/{database}"

    def client(self, url: str) -> Redis:
        """A client of the database that `url` names."""
        return Redis.from_url(url)

    def queues(self, url: str) -> dict[str, int]:
        """How many messages wait in which list of the database that `url` names."""
        with self.client(url) as client:
            lists = [key for key in client.keys("*") if client.type(key) == b"list"]
            return {key.decode(): client.llen(key) for key in lists}

    def held(self, url: str) -> list[str]:
        """The bodies of what workers have taken, written down and not acknowledged."""
        with self.client(url) as client:
            return [json.loads(record)[0]["body"] for record in client.hvals("unacked")]

    @contextlib.contextmanager
    def recorded(self, url: str) -> Iterator[set[str]]:
        """The bodies of all messages that anybody writes down as taken, filled in while the block runs."""
        bodies: set[str] = set()
        end = f"end of {uuid.uuid4()}"
        with self.client(url) as client, client.monitor() as monitor:

            def follow() -> None:
                # As the server writes it, since the client takes Valkey's quotes for the end of a word.
                for line in iter(monitor.connection.read_response, None):
                    told = line.decode() if isinstance(line, bytes) else str(line)
                    if '"HSET" "unacked" ' in told:
                        bodies.update(re.findall(r'"body\\*": ?\\*"([^"\\]+)\\*"', told))
                    elif end in told:
                        return

            follower = threading.Thread(target=follow, daemon=True)
            follower.start()
            yield bodies
            client.echo(end)
            follower.join(30)
            assert not follower.is_alive()

    def put_raw(self, url: str, queue: str, raw: bytes) -> None:
        """Puts bytes where an envelope is expected."""
        with self.client(url) as client:
            client.lpush(queue, raw)

    def version(self) -> str:
        with self.client(self.url()) as client:
            told = client.info("server")
            # Valkey also says which Redis it can stand for.
            return f"Valkey {told['valkey_version']}" if "valkey_version" in told else str(told["redis_version"])
