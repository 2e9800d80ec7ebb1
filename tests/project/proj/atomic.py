"""A base class of tasks that the settings name."""

from typing import Any

from celery import Task
from django.db import transaction


class AtomicTask(Task):
    """Runs every task of the project in a transaction."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with transaction.atomic():
            return super().__call__(*args, **kwargs)
