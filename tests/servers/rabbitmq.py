"""A private RabbitMQ node: own port, own data, own cookie, own port mapper; never the system's service."""

from __future__ import annotations

import base64
import glob
import itertools
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import kombu

from servers.process import Process, free_port

USER, PASSWORD = "guest", "guest"


def program(name: str = "rabbitmq-server") -> str | None:
    """RabbitMQ's own script of this name, if it is installed.

    Debian's wrapper on PATH changes to the user `rabbitmq`, who cannot write to a test's folder; the scripts that it
    calls do not.
    """
    beside = sorted(glob.glob("/usr/lib/rabbitmq/bin")) + sorted(glob.glob("/usr/lib/rabbitmq/lib/*/sbin"))
    return shutil.which(name, path=os.pathsep.join(beside)) or shutil.which(name)


class RabbitmqServer:
    """Starts a node; `config` are lines for its rabbitmq.conf."""

    def __init__(self, folder: Path, config: Mapping[str, str] | None = None) -> None:
        found = program()
        assert found is not None, "ask for the `rabbitmq_server` fixture, which skips where no server is installed"
        self._program = found
        self.folder = folder
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._mapper_port = free_port()
        self._management_port = free_port()
        self._config = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self._management_port),
            "disk_free_limit.absolute": "10MB",
            **(config or {}),
        }
        self._node = f"test-{self.port}@localhost"
        self._prepare()
        self.start()

    def _prepare(self) -> None:
        (self.folder / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in self._config.items()))
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "environment").write_text("")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(f"cookie{os.getpid()}x{self.port}")
        cookie.chmod(0o400)

    @property
    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # Two busy schedulers are plenty for a test's broker and leave the machine to the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def start(self) -> None:
        """Starts it, again after a `kill`, on the same port and data."""
        self._dist_port = free_port()
        # The port mapper would be started as a daemon and stay behind: it is started here, as a child of ours.
        mapper = shutil.which("epmd")
        assert mapper is not None, "Erlang's epmd is not on PATH, though RabbitMQ is installed"
        self._mapper = Process(
            [mapper, "-port", str(self._mapper_port), "-address", "127.0.0.1", "-d"],
            env=self._environment,
            cwd=self.folder,
        )
        self._mapper.wait_for("epmd running")
        self.process = Process([self._program], env=self._environment, cwd=self.folder)
        self.process.wait_for("Server startup complete", timeout=120)

    def kill(self) -> None:
        self.process.kill()
        self._mapper.kill()

    def stop(self) -> None:
        self.process.stop()
        self._mapper.kill()

    def url(self, vhost: str = "/", *, password: str = PASSWORD) -> str:
        return f"amqp://{USER}:{password}@127.0.0.1:{self.port}/{'%2F' if vhost == '/' else vhost}"

    def fresh_url(self) -> str:
        """The URL of a virtual host that no test has used."""
        name = f"test-{next(self._numbers)}"
        self.manage("PUT", f"vhosts/{name}")
        self.manage("PUT", f"permissions/{name}/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
        return self.url(name)

    def queues(self, url: str) -> dict[str, int]:
        """How many messages wait in which queue of the virtual host that `url` names."""
        # Exclusive ones are a worker's mailboxes, which nobody else may ask about.
        names = [queue["name"] for queue in self.listed("queues", url) if not queue.get("exclusive")]
        with kombu.Connection(url) as connection, connection.channel() as channel:
            # The management's own counts lag behind; the queues' do not.
            counts = {name: int(channel.queue_declare(name, passive=True).message_count) for name in names}
        return {name: count for name, count in counts.items() if count}

    def listed(self, what: str, url: str) -> list[dict[str, Any]]:
        """The "queues", "exchanges" or "bindings" of the virtual host that `url` names."""
        found: list[dict[str, Any]] = self.manage("GET", f"{what}/{quote(self.vhost(url), safe='')}")
        return found

    def manage(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Calls the management's HTTP interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.read()
        return json.loads(text) if text else None

    def vhost(self, url: str) -> str:
        return unquote(urlsplit(url).path[1:])

    def control(self, *arguments: str) -> str:
        """Runs rabbitmqctl on the node and returns what it printed."""
        found = program("rabbitmqctl")
        assert found is not None
        done = subprocess.run(
            [found, "--quiet", "--node", self._node, *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def since(self, *version: int) -> bool:
        """Whether it is of this version or a newer one."""
        return tuple(map(int, self.version().split(".")[: len(version)])) >= version

    def version(self) -> str:
        return self.control("version").strip()
