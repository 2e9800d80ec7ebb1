"""The shop's site, and its parcels."""

import os

import shop_path  # noqa: F401  (importing makes the shop importable)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "polyglot_site.settings")

from shop_site.celery import app as celery_app

__all__ = ["celery_app"]
