"""Pages of every kind that a request may meet, for `ROOT_URLCONF`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from shopapp.effects import record

_together = threading.Barrier(2)
_here: list[asyncio.Event] = []


def plain(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(name)


async def coroutine(request: HttpRequest, name: str) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(name)


def meets(request: HttpRequest, name: str) -> HttpResponse:
    """Answers when there are two of it."""
    _together.wait(30)
    return HttpResponse(name)


async def meets_in_the_loop(request: HttpRequest, name: str) -> HttpResponse:
    _here.append(asyncio.Event())
    if len(_here) == 2:
        for event in _here:
            event.set()
    await asyncio.wait_for(_here[0].wait(), 30)
    return HttpResponse(name)


def fails(request: HttpRequest, name: str) -> HttpResponse:
    raise LookupError(name)


async def fails_in_the_loop(request: HttpRequest, name: str) -> HttpResponse:
    raise LookupError(name)


def streams(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield name.encode()

    def pieces_here() -> Iterator[bytes]:
        yield name.encode()

    return StreamingHttpResponse(pieces() if hasattr(request, "scope") else pieces_here())


async def never_answers(request: HttpRequest, name: str) -> HttpResponse:
    record("never_answers", None, name=name)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets that event")


urlpatterns = [
    path("plain/<name>", plain),
    path("coroutine/<name>", coroutine),
    path("meets/<name>", meets),
    path("meets_in_the_loop/<name>", meets_in_the_loop),
    path("fails/<name>", fails),
    path("fails_in_the_loop/<name>", fails_in_the_loop),
    path("streams/<name>", streams),
    path("never_answers/<name>", never_answers),
]
