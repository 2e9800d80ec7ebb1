"""Keeps what `on_failure` is told."""

from typing import Any

noted: list[tuple[str, str, str]] = []


def note(signal: Any, task_id: str, error: BaseException) -> None:
    noted.append((str(signal), task_id, repr(type(error))))
