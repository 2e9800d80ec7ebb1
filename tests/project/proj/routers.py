"""Routers that the settings name."""

from typing import Any


class Replica:
    """Rows are read from one database and written to another, as with a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"
