"""A Celery task of the app that is no signal, on the same queue."""

import os
from pathlib import Path

from celery import shared_task

from checker.journal import Journal
from checker.signals import QUEUE


@shared_task(queue=QUEUE)
def foreign(token: str) -> str:
    """Writes down that it ran."""
    Journal(Path(os.environ["PROJECT_FOLDER"]) / "effects.jsonl").append(
        receiver="foreign", token=token, event="done", id=foreign.request.id, pid=os.getpid()
    )
    return token
