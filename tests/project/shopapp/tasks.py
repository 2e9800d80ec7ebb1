"""Ordinary Celery tasks, which share the queues of signals."""

import time
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Ignore, Reject

from shopapp.effects import record


class Unreachable(Exception):
    """What a task meets that may be tried again."""


@shared_task
def add(x: int, y: int) -> int:
    record("add", None, x=x, y=y)
    return x + y


@shared_task(acks_late=True)
def add_late(x: int, y: int) -> int:
    record("add_late", None, x=x, y=y)
    return x + y


@shared_task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(bind=True, autoretry_for=(Unreachable,), max_retries=2, default_retry_delay=0)
def third_time_lucky(self: Task, key: str) -> int:
    record("third_time_lucky", None, key=key, retries=self.request.retries)
    if self.request.retries < 2:
        raise Unreachable(key)
    return int(self.request.retries)


@shared_task(acks_late=True)
def reject(key: str) -> None:
    record("reject", None, key=key)
    raise Reject("nobody is to run it", requeue=False)


@shared_task
def ignore(key: str) -> None:
    record("ignore", None, key=key)
    raise Ignore()


@shared_task
def fail(key: str) -> None:
    record("fail", None, key=key)
    raise LookupError(key)


@shared_task
def note_failure(request: Any, error: BaseException, traceback: Any) -> None:
    record("note_failure", None, failed=request.id, error=repr(error))


@shared_task(bind=True)
def describe(self: Task) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "routing_key": request.delivery_info["routing_key"],
        "exchange": request.delivery_info["exchange"],
        "redelivered": request.delivery_info["redelivered"],
        "hostname": request.hostname.partition("@")[0],
        "headers": request.headers,
        "correlation_id": request.correlation_id,
        "eager": request.is_eager,
    }


@shared_task
def has_fresh_connection() -> bool:
    """Whether the database connection that the task before it used is closed."""
    from django.db import connection

    fresh = connection.connection is None
    connection.ensure_connection()
    return fresh


@shared_task
def last() -> None:
    """As Celery's default is, it is acknowledged before it runs."""


@shared_task
def take_long(seconds: float) -> None:
    """As Celery's default is, it is acknowledged before it runs."""
    record("take_long", None, ended=False)
    time.sleep(seconds)
    record("take_long", None, ended=True)


@shared_task
def read(path: str) -> str:
    """Waits for what somebody writes into a pipe."""
    record("read", None, path=path)
    with open(path) as pipe:
        return pipe.read()
