"""The shop's settings, with one more app and one more queue."""

import os

from kombu import Exchange, Queue

from shop_site.settings import *  # noqa: F403
from shop_site.settings import CELERY_TASK_QUEUES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "parcels"]
ROOT_URLCONF = "polyglot_site.urls"

# What the warehouse reads, and nobody else does: one message has one reader.
WAREHOUSE_QUEUE = os.environ.get("WAREHOUSE_QUEUE", "warehouse")
CELERY_TASK_QUEUES = [
    *CELERY_TASK_QUEUES,
    Queue(WAREHOUSE_QUEUE, Exchange(WAREHOUSE_QUEUE), routing_key=WAREHOUSE_QUEUE),
]
