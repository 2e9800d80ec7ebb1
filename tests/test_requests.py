"""Django's request signals, forwarded: under real servers of WSGI and of ASGI, and in Django's test clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from servers.eventually import eventually
from servers.process import free_port
from servers.project import Project
from servers.redis import RedisServer

FIELDS = ["host", "method", "path", "query_string", "remote_addr", "scheme"]
ASGI = ["uvicorn", "daphne"]


class MakeProject(Protocol):
    def __call__(self, broker: Any, **arguments: Any) -> Project: ...


@pytest.fixture
def here(make_project: MakeProject, redis_server: RedisServer) -> Project:
    return make_project(redis_server)


def forwarded(project: Project) -> list[tuple[str, dict[str, str]]]:
    """The requests that came to the broker: the signal's name, and what it carries."""
    bodies = [json.loads(message.body) for message in project.take("celery")]
    return [(args[0].rpartition("_")[2], named) for args, named, _ in bodies]


class Site:
    """The project's pages behind a real server.

    Arguments:
        kind: which server: gunicorn, which speaks WSGI, or uvicorn or daphne, which speak ASGI.
    """

    def __init__(self, project: Project, kind: str) -> None:
        self.project = project
        self.port = free_port()
        self._server = project.start(
            *{
                "gunicorn": ("-m", "gunicorn", "--threads=4", f"--bind=127.0.0.1:{self.port}", "proj.wsgi:application"),
                "uvicorn": ("-m", "uvicorn", f"--port={self.port}", "proj.asgi:application"),
                "daphne": ("-m", "daphne", f"--port={self.port}", "proj.asgi:application"),
            }[kind]
        )
        self._server.wait_for({"uvicorn": "Uvicorn running on"}.get(kind, "Listening "))

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> int:
        """Asks for a page, and returns the status of the answer."""
        connection = connection or self.connect()
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        self._server.stop()

    def told(self, requests: int) -> list[tuple[str, dict[str, str]]]:
        """Waits for both signals of each request, and returns what came to the broker until the server had ended.

        An answer is with the client before Django says that its request has finished.
        """
        eventually(lambda: self.project.queues().get("celery") == 2 * requests, "both signals of each request")
        self.close()
        assert "was not forwarded" not in self._server.output
        assert "could not be described" not in self._server.output
        return forwarded(self.project)


@pytest.fixture
def site(request: pytest.FixtureRequest, make_project: MakeProject, redis_server: RedisServer) -> Iterator[Site]:
    with contextlib.closing(
        Site(make_project(redis_server, settings='ROOT_URLCONF = "shopapp.pages"'), request.param)
    ) as site:
        yield site


def paths(told: list[tuple[str, dict[str, str]]], signal: str) -> list[str]:
    return sorted(described["path"] for name, described in told if name == signal)


@pytest.mark.parametrize("site", ["gunicorn", *ASGI], indirect=True)
class TestUnderARealServer:
    def test_both_signals_carry_the_request(self, site: Site) -> None:
        """One after the other on one connection: sync and async views, pages that fail, and pages that stream."""
        pages = {
            "/plain/1": 200,
            "/coroutine/2": 200,
            "/fails/3": 500,
            "/fails_in_the_loop/4": 500,
            "/streams/5": 200,
            "/plain/caf%C3%A9": 200,
            "/nowhere": 404,
        }
        kept = site.connect()
        assert {path: site.get(f"{path}?q=%C3%A9", kept) for path in pages} == pages
        told = site.told(len(pages))
        expected = ["/plain/1", "/coroutine/2", "/fails/3", "/fails_in_the_loop/4", "/streams/5", "/nowhere"]
        for signal in ("started", "finished"):
            assert paths(told, signal) == sorted([*expected, "/plain/café"])
        for _, described in told:
            assert sorted(described) == FIELDS
            assert described["method"] == "GET"
            assert described["query_string"] == "q=%C3%A9"
            assert described["host"] == f"127.0.0.1:{site.port}"
            assert described["scheme"] == "http"
            assert described["remote_addr"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("site", "page"),
    [("gunicorn", "meets"), *((kind, page) for kind in ASGI for page in ("meets", "meets_in_the_loop"))],
    indirect=["site"],
)
def test_requests_at_the_same_time_are_told_apart(site: Site, page: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(site.get, [f"/{page}/a", f"/{page}/b"])) == [200, 200]
    told = site.told(2)
    assert paths(told, "started") == paths(told, "finished") == [f"/{page}/a", f"/{page}/b"]


@pytest.mark.parametrize("site", ASGI, indirect=True)
def test_a_client_that_goes_away_is_told_too(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as client:
        client.sendall(b"GET /never_answers/1 HTTP/1.1\r\nHost: shop\r\n\r\n")
        site.project.effects.wait_for(1, "never_answers")
    eventually(lambda: site.project.queues().get("celery") == 2, "both signals")
    assert site.get("/plain/2") == 200
    told = site.told(2)
    assert paths(told, "started") == paths(told, "finished") == ["/never_answers/1", "/plain/2"]


class TestInDjangosTestClients:
    REQUEST = """
        from django.test import Client
        Client(headers={"Cookie": "secret=1"}).get("/nowhere?q=1", raise_request_exception=False)
        from async_signals import flush
        flush()
        """

    def test_djangos_are_forwarded_with_what_may_leave_the_process(self, here: Project) -> None:
        here.attempt(self.REQUEST)
        with here.worker():
            (started,) = here.effects.wait_for(1, "started")
            (finished,) = here.effects.wait_for(1, "my_callback")
        told = {"method": "GET", "path": "/nowhere", "query_string": "q=1", "scheme": "http"}
        assert told.items() <= started["arguments"].items()
        assert "secret" not in str(started)
        assert started["arguments"]["path"] == finished["arguments"]["path"]

    def test_the_asynchronous_one(self, here: Project) -> None:
        here.attempt(
            """
            import asyncio
            from django.test import AsyncClient

            async def main():
                await AsyncClient().get("/nowhere/1")
                await asyncio.gather(*(AsyncClient().get(f"/nowhere/{number}") for number in (2, 3)))

            asyncio.run(main())
            """
        )
        told = forwarded(here)
        assert paths(told, "started") == paths(told, "finished") == ["/nowhere/1", "/nowhere/2", "/nowhere/3"]

    def test_a_mounted_application(self, here: Project) -> None:
        """The whole path, as `request.path` has it, under WSGI too."""
        here.attempt('from django.test import Client; Client().get("/nowhere", SCRIPT_NAME="/shop/")')
        told = forwarded(here)
        assert paths(told, "started") == paths(told, "finished") == ["/shop/nowhere"]

    def test_only_with_the_app_installed(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server, installed=False)
        project.attempt(self.REQUEST)
        assert project.queues() == {}

    def test_a_broker_that_is_gone_disturbs_no_request(self, make_project: MakeProject) -> None:
        project = make_project(None, url="redis://127.0.0.1:1/0")
        report = project.attempt(
            """
            from django.test import Client
            result = Client().get("/nowhere", raise_request_exception=False).status_code
            """
        )
        assert report.error is None
        assert report.result == 404


class TestWhatIsNotKnown:
    """Arrives as empty strings: a receiver that names an argument is called all the same."""

    def told(self, project: Project, code: str) -> list[dict[str, str]]:
        report = project.run(
            f"""
            from django.core import signals
            from async_signals.signals import request_finished
            from async_signals.testing import capture_signals
            with capture_signals(request_finished) as captured:
                signals.request_started.send(None, environ={{"PATH_INFO": "/before"}})
                {code}
                signals.request_finished.send(None)
            result = [each.kwargs for each in captured]
            """
        )
        assert isinstance(report.result, list)
        return report.result

    @pytest.mark.parametrize(
        "code",
        [
            "signals.request_started.send(None, environ={'PATH_INFO': 5})",
            "signals.request_started.send(None, scope={'headers': 5})",
            "signals.request_started.send(None)",
        ],
    )
    def test_of_a_request_that_cannot_be_described(self, here: Project, code: str) -> None:
        assert self.told(here, code) == [dict.fromkeys(FIELDS, "")]

    def test_of_a_request_that_is_finished_already(self, here: Project) -> None:
        first, second = self.told(here, "signals.request_finished.send(None)")
        assert first["path"] == "/before"
        assert second == dict.fromkeys(FIELDS, "")

    def test_of_a_request_that_only_has_a_path(self, here: Project) -> None:
        (told,) = self.told(here, "signals.request_started.send(None, scope={'path': '/', 'client': None})")
        assert told == {**dict.fromkeys(FIELDS, ""), "path": "/"}
