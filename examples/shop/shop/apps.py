"""The shop's app config."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Connects the receivers."""

    name = "shop"

    def ready(self) -> None:
        """Import the receivers, in the site and in the worker alike."""
        from . import receivers  # noqa: F401  (importing connects them)
