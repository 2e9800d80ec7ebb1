"""Deletes all of the site's queues from the broker, the warehouse's too."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from shop_site.celery import app


class Command(BaseCommand):
    """For a broker that others use too: the demo leaves nothing of its own there."""

    help = "Delete the queues of the shop and of its warehouse, and whatever still stands in them."

    def handle(self, **_: Any) -> None:
        """Delete each queue, its dead letters and its exchange."""
        with app.connection_for_write() as connection, connection.channel() as channel:
            for known in settings.CELERY_TASK_QUEUES:
                queue = known(channel)
                queue.declare()  # kombu forgets on Redis only what this process has bound
                queue.delete()
                queue.exchange.delete()
                app.amqp.queues[f"{known.name}.dead"](channel).delete()
                self.stdout.write(f"{known.name} is gone")
