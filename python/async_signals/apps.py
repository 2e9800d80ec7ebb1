"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class AsyncSignalsConfig(AppConfig):
    """Adds what needs an installed app: the forwarding of request signals, and the system checks."""

    name = "async_signals"
    verbose_name = "Async Signals"

    def ready(self) -> None:
        """Connects both."""
        from . import checks, requests

        checks.register_checks()
        requests.connect()
