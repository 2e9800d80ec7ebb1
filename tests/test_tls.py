"""TLS to Redis and RabbitMQ: published as Celery would, certificates and names verified unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import MakeProject, need
from servers import rabbitmq, redis
from servers.certificates import Certificates
from servers.process import free_port
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from test_parity import compare


@dataclass
class Guarded:
    """A server that listens with TLS, and without it for the tests to look."""

    server: RedisServer | RabbitmqServer
    port: int
    certificates: Certificates

    def url(self, place: str, host: str = "localhost") -> str:
        """The TLS URL of a place on it."""
        parts = urlsplit(place)
        user = f"{parts.username}:{parts.password}@" if parts.username else ""
        return f"{parts.scheme}s://{user}{host}:{self.port}{parts.path}"

    def settings(self, reqs: str = "CERT_REQUIRED", *, trusted: bool = True) -> str:
        """`broker_use_ssl` in the words of the broker's own client."""
        prefix = "ssl_" if isinstance(self.server, RedisServer) else ""
        trust = f'"{prefix}ca_certs": "{self.certificates.authority}", ' if trusted else ""
        return f'import ssl\nCELERY_BROKER_USE_SSL = {{{trust}"{prefix}cert_reqs": ssl.{reqs}}}\n' + DEADLINE


DEADLINE = 'ASYNC_SIGNALS = {"publish_timeout": 3}\n'


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    found = serve(request.param, folder, Certificates(folder))
    yield found
    found.server.stop()


def serve(kind: str, folder: Path, certificates: Certificates) -> Guarded:
    port = free_port()
    if kind == "redis":
        need(redis.program(), "redis-server")
        files = ("--tls-cert-file", str(certificates.certificate), "--tls-key-file", str(certificates.key))
        trust = ("--tls-ca-cert-file", str(certificates.authority), "--tls-auth-clients", "no")
        return Guarded(RedisServer(folder, ["--tls-port", str(port), *files, *trust]), port, certificates)
    need(rabbitmq.program(), "rabbitmq-server")
    config = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(certificates.authority),
        "ssl_options.certfile": str(certificates.certificate),
        "ssl_options.keyfile": str(certificates.key),
        "ssl_options.verify": "verify_none",
    }
    return Guarded(RabbitmqServer(folder, config), port, certificates)


SEND = 'from shopapp.signals import my_signal; my_signal.send("web")'


def test_published_as_celery_would(make_project: MakeProject, guarded: Guarded) -> None:
    compare(make_project, guarded.server, guarded.settings(), url=guarded.url)


def test_a_worker_runs_it(make_project: MakeProject, guarded: Guarded) -> None:
    project = make_project(guarded.server, url=guarded.url(guarded.server.fresh_url()), settings=guarded.settings())
    project.run(SEND)
    with project.worker():
        [effect] = project.effects.wait_for(1)
    assert effect["receiver"] == "mine"


def test_an_unknown_authority_is_refused(make_project: MakeProject, guarded: Guarded) -> None:
    place = guarded.server.fresh_url()
    for settings in (DEADLINE, f"CELERY_BROKER_USE_SSL = True\n{DEADLINE}", guarded.settings(trusted=False)):
        report = make_project(guarded.server, url=guarded.url(place), settings=settings).attempt(SEND)
        assert "certificate" in report.failed("SignalNotSent").lower()
    assert guarded.server.queues(place) == {}


def test_the_error_says_how_to_trust_it(make_project: MakeProject, guarded: Guarded) -> None:
    """Stricter than kombu with `rediss://`: what docs/migrating.md says to add is what the error says."""
    place = guarded.server.fresh_url()
    text = make_project(guarded.server, url=guarded.url(place), settings=DEADLINE).attempt(SEND).failed("SignalNotSent")
    assert "ca_certs of broker_use_ssl" in text
    assert "ssl_cert_reqs=none" in text
    if isinstance(guarded.server, RedisServer):
        for url, settings in (
            (f"{guarded.url(place)}?ssl_cert_reqs=none", DEADLINE),
            (guarded.url(place), f'CELERY_BROKER_USE_SSL = {{"ssl_ca_certs": "{guarded.certificates.authority}"}}'),
        ):
            make_project(guarded.server, url=url, settings=settings).run(SEND)
        assert guarded.server.queues(place) == {"celery": 2}


def test_tls_is_used_where_only_the_setting_asks_for_it(make_project: MakeProject, guarded: Guarded) -> None:
    """With a URL that has no word of TLS."""
    place = guarded.server.fresh_url()
    scheme = urlsplit(place).scheme
    url = guarded.url(place).replace(f"{scheme}s://", f"{scheme}://")
    make_project(guarded.server, url=url, settings=guarded.settings()).run(SEND)
    assert guarded.server.queues(place) == {"celery": 1}


def test_verification_can_be_turned_off_explicitly(make_project: MakeProject, guarded: Guarded) -> None:
    place = guarded.server.fresh_url()
    project = make_project(
        guarded.server, url=guarded.url(place), settings=guarded.settings("CERT_NONE", trusted=False)
    )
    project.run(SEND)
    assert guarded.server.queues(place) == {"celery": 1}


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_certificate_for_another_host_is_refused(make_project: MakeProject, tmp_path: Path, kind: str) -> None:
    guarded = serve(kind, tmp_path, Certificates(tmp_path, host="other.example"))
    try:
        place = guarded.server.fresh_url()
        project = make_project(guarded.server, url=guarded.url(place), settings=guarded.settings())
        text = project.attempt(SEND).failed("SignalNotSent")
        assert "certificate" in text.lower()
        assert guarded.server.queues(place) == {}
    finally:
        guarded.server.stop()
