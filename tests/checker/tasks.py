"""Celery tasks of the app that are no signals, on the same queue."""

import os
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task

from checker.journal import Journal
from checker.signals import QUEUE


def note(task: Task, token: str, event: str = "done") -> None:
    """Writes down that a task ran."""
    Journal(Path(os.environ["PROJECT_FOLDER"]) / "effects.jsonl").append(
        receiver=task.name.rpartition(".")[2],
        token=token,
        event=event,
        id=task.request.id,
        attempt=task.request.retries + 1,
        pid=os.getpid(),
        time=time.time(),
    )


@shared_task(bind=True, queue=QUEUE)
def foreign(self: Any, token: str) -> None:
    """Writes down that it ran."""
    note(self, token)


@shared_task(bind=True, queue=QUEUE, max_retries=2)
def foreign_tried_again(self: Any, token: str) -> None:
    """Succeeds the second time, by Celery's own means."""
    if not self.request.retries:
        note(self, token, "began")
        raise self.retry(countdown=0.1)
    note(self, token)
