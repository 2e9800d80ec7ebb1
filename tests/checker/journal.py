"""A log that survives the kill of any of its writers: what was written down before is read back whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Journal:
    """The writing end; many processes may hold one of the same file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, **line: Any) -> None:
        """Appends one line by one write, which is with the kernel when this returns: a kill -9 takes none of it away.

        A line begins with a line end too, so that one that was cut off spoils itself only.
        """
        os.write(self._descriptor, b"\n" + json.dumps(line).encode() + b"\n")


class Reader:
    """The reading end: gives each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> list[Line]:
        """The whole lines that were written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = []
        for line in whole.splitlines():
            if not line:
                continue
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue  # cut off by the death of its writer
        return lines
