"""The app's config."""

from django.apps import AppConfig


class ParcelsConfig(AppConfig):
    """Connects the receivers."""

    name = "parcels"

    def ready(self) -> None:
        """Import the receivers, in the site and in the worker alike."""
        from . import receivers  # noqa: F401  (importing connects them)
