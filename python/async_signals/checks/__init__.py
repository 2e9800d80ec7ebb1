"""System checks: what of settings, signals and receivers would lose signals, or keep them from being sent.

What each says is in docs/checks.md. A check never raises: Django's commands, and Celery's workers as they start, would
end with it. It says nothing unless it is sure, and connects to nothing unless it was asked to.
"""

from __future__ import annotations

from django.core.checks import Tags, register

from .configuration import check_settings
from .installation import check_deployment, check_installation, check_tables
from .receivers import check_receivers
from .signals import check_signals

__all__ = ["TAG", "check_tables", "register_checks"]

TAG = "async_signals"


def register_checks() -> None:
    """Makes ``manage.py check`` run them."""
    for check in (check_settings, check_installation, check_signals, check_receivers):
        register(check, TAG)
    register(check_deployment, TAG, deploy=True)
    # Under that tag alone: Django 6.1 hands all databases to checks that were asked for by a tag of theirs.
    register(check_tables, Tags.database)
