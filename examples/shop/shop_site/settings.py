"""The shop's settings. Nothing here is for production."""

import os
from pathlib import Path

from kombu import Exchange, Queue

PROJECT_DIR = Path(__file__).resolve().parent.parent

# The shop's own files. The demo points this at a directory that it removes afterwards.
DATA_DIR = Path(os.environ.get("SHOP_DATA_DIR", PROJECT_DIR))

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "a shop that sells no real tea has no real secret")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "async_signals",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "shop_site.urls"
WSGI_APPLICATION = "shop_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "shop.sqlite3",
        # The site and the worker write to one file: readers must not block the
        # writer, and a writer waits for its turn at the start of a transaction.
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

# The broker is a file of its own. Never put it into DATABASES: a transaction on the
# shop's data would hold the very lock that publishing waits for.
CELERY_BROKER_URL = os.environ.get("SHOP_BROKER_URL", f"sqla+sqlite:///{DATA_DIR / 'broker.sqlite3'}")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

# Signals go to three queues: the default one, one for what must not queue behind the rest,
# and one for what comes in crowds. All are declared here, each with an exchange of its own
# as Celery would make it, so that a worker reads them even without -Q. The names can be changed for the sake of a
# broker that others use too.
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("SHOP_DEFAULT_QUEUE", "celery")
URGENT_QUEUE = os.environ.get("SHOP_URGENT_QUEUE", "high_priority")
RUSH_QUEUE = os.environ.get("SHOP_RUSH_QUEUE", "page_views")
CELERY_TASK_QUEUES = [
    Queue(name, Exchange(name), routing_key=name) for name in (CELERY_TASK_DEFAULT_QUEUE, URGENT_QUEUE, RUSH_QUEUE)
]
