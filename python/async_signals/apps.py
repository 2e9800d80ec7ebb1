"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class AsyncSignalsConfig(AppConfig):
    """What needs an installed app: request signals are forwarded, settings checked, once=True kept."""

    name = "async_signals"
    verbose_name = "Async Signals"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connects the first two."""
        from . import checks, requests

        checks.register_checks()
        requests.connect()
