"""Deletes the shop's queues from the broker."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from shop_site.celery import app


class Command(BaseCommand):
    """For a broker that others use too: the demo leaves nothing of its own there."""

    help = "Delete the shop's queues, and whatever still stands in them, from the broker."

    def handle(self, **_: Any) -> None:
        """Delete each queue, its dead letters and its exchange."""
        names = (settings.CELERY_TASK_DEFAULT_QUEUE, settings.URGENT_QUEUE, settings.RUSH_QUEUE)
        with app.connection_for_write() as connection, connection.channel() as channel:
            for name in names:
                queue = app.amqp.queues[name](channel)
                queue.declare()  # kombu forgets on Redis only what this process has bound
                queue.delete()
                if queue.exchange.name:
                    queue.exchange.delete()
                app.amqp.queues[f"{name}.dead"](channel).delete()
                self.stdout.write(f"{name} is gone")
