"""A private PostgreSQL on a free port."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from servers.process import Process, free_port

#: Who runs it where the tests are run by root, whom PostgreSQL refuses.
USER = "postgres"


def program(name: str = "postgres") -> str | None:
    """One of PostgreSQL's own programs: of the newest version that is installed, which Debian keeps off the PATH."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: float(path.split("/")[4]))
    return found[-1] if found else shutil.which(name)


class PostgresqlServer:
    """Starts a server that keeps nothing beyond its own end."""

    def __init__(self) -> None:
        found, initdb = program(), program("initdb")
        assert found is not None, "ask for the `postgresql` fixture, which skips where no server is installed"
        assert initdb is not None
        self.port = free_port()
        self._numbers = itertools.count(1)
        # Not where pytest keeps what is the tests': that is for nobody else to look into, and this may be.
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if self._as_user:
            shutil.chown(self.folder, USER, USER)
        data = self.folder / "data"
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
        }
        words = ("--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync")
        subprocess.run(
            [*self._as_user, initdb, "--pgdata", str(data), *words],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        self.process = Process([*self._as_user, found, "-D", str(data), *options], env=env, cwd=self.folder)
        self.process.wait_for("database system is ready to accept connections")

    @property
    def _as_user(self) -> Sequence[str]:
        if os.geteuid() != 0:
            return ()
        return ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")

    def stop(self) -> None:
        self.process.signal_group(signal.SIGINT)  # whoever is connected still
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh_database(self) -> str:
        """The name of a database that no test has used."""
        name = f"test_{next(self._numbers)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return name

    def connect(self, database: str) -> Any:
        """A connection that commits each statement."""
        import psycopg

        return psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True)

    def ask(self, database: str, statement: str) -> list[Any]:
        """Runs one statement, and returns the first column of what it answers."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def settings(self, database: str, **more: Any) -> str:
        """The lines of settings by which a project uses it."""
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "USER": USER,
            "NAME": database,
            **more,
        }
        return f"DATABASES = {{'default': {entry!r}}}"

    def version(self) -> str:
        [told] = self.ask("postgres", "SHOW server_version")
        return str(told).split()[0]
