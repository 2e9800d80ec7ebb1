"""The settings that all tests share; `local_settings` holds what a test adds or changes."""

import os
from pathlib import Path

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "proj.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE: list[str] = []

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "shopapp"]

_folder = Path(os.environ["PROJECT_FOLDER"])
DATABASES = {
    name: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _folder / f"{name}.sqlite3",
        "TEST": {"NAME": _folder / f"test-{name}.sqlite3"},
    }
    for name in ("default", "other")
}

try:
    from local_settings import *  # noqa: F403
except ModuleNotFoundError as missing:
    if missing.name != "local_settings":
        raise
