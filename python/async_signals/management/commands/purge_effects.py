"""``manage.py purge_effects``: forget which receivers ran for messages that are old."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from async_signals import once


class Command(BaseCommand):
    """Workers do the same by themselves, now and then and a little at a time."""

    help = "Deletes what is kept of messages whose receivers ran once (once=True) and that will not come again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """One option."""
        parser.add_argument(
            "--older-than", type=float, metavar="DAYS", help="by default ASYNC_SIGNALS['once_max_age'], which is 7 days"
        )

    def handle(self, *args: Any, older_than: float | None, **options: Any) -> None:
        """Deletes, and says how much."""
        if older_than is not None and older_than < 0:
            raise CommandError("--older-than is a number of days, 0 or more")
        deleted = once.purge(None if older_than is None else timedelta(days=older_than))
        self.stdout.write(f"{deleted} deleted")
