"""The embedded broker: one file, no server."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from pathlib import Path


class SqliteBroker:
    """Hands out broker files of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    def fresh_url(self) -> str:
        return f"sqla+sqlite:///{self.folder / f'broker-{next(self._numbers)}.sqlite3'}"

    def queues(self, url: str) -> dict[str, int]:
        """How many messages wait in which queue of the file that `url` names."""
        path = Path(url.removeprefix("sqla+sqlite:///"))
        if not path.exists():
            return {}
        with contextlib.closing(sqlite3.connect(path)) as database:
            return dict(
                database.execute(
                    "SELECT q.name, COUNT(*) FROM kombu_message m JOIN kombu_queue q ON q.id = m.queue_id"
                    " WHERE m.visible GROUP BY q.name"
                )
            )

    def held(self, url: str) -> list[str]:
        """The bodies of what workers of ours have taken and not acknowledged; kombu's say nothing of theirs."""
        return self._taken(url, "id IN (SELECT message_id FROM async_signals_kombu_message_lease)")

    def taken_for_good(self, url: str) -> list[str]:
        """The bodies of what kombu has taken: it never deletes them, whether they ran or not."""
        return self._taken(url, "id NOT IN (SELECT message_id FROM async_signals_kombu_message_lease)")

    def _taken(self, url: str, condition: str) -> list[str]:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqla+sqlite:///"))) as database:
            rows = database.execute(f"SELECT payload FROM kombu_message WHERE NOT visible AND {condition}")
            return [json.loads(payload)["body"] for (payload,) in rows]

    def put_raw(self, url: str, queue: str, raw: bytes) -> None:
        """Puts text where an envelope is expected, into a queue that is there."""
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqla+sqlite:///"))) as database, database:
            database.execute(
                "INSERT INTO kombu_message (visible, timestamp, payload, version, queue_id)"
                " SELECT 1, datetime('now'), ?, 1, id FROM kombu_queue WHERE name = ?",
                (raw.decode(), queue),
            )

    def version(self) -> str:
        return sqlite3.sqlite_version

    def stop(self) -> None:
        """Nothing runs."""
