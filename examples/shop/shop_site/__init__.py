"""The site. Importing it makes the Celery app, as Celery's own guide for Django says."""

from .celery import app as celery_app

__all__ = ["celery_app"]
