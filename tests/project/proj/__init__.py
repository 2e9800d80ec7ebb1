"""A small Django project, as its users write one; the tests run it in processes of its own."""

from .celery import app as celery_app

__all__ = ["celery_app"]
