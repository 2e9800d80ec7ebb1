"""Sends many signals at once, for a worker to show what it can do."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from async_signals import flush
from shop.signals import page_viewed

#: A loop is faster than a broker: flushed in between, it never meets a full buffer.
FLUSH_EVERY = 5_000


class Command(BaseCommand):
    """A crowd that looks at the catalogue."""

    help = "Send page_viewed so many times, and wait until the broker has it all."

    def add_arguments(self, parser: CommandParser) -> None:
        """How many."""
        parser.add_argument("count", type=int)

    def handle(self, *, count: int, **_: Any) -> None:
        """Send, then flush."""
        for number in range(1, count + 1):
            page_viewed.send(None, path=f"/products/{number % 8}")
            if number % FLUSH_EVERY == 0:
                flush(60)
        flush(60)
        self.stdout.write(f"{count} signals are with the broker")
