"""List the signals of the project, with their receivers.

A signal that nobody receives is listed too. What is listed is what this process has imported: the apps, and what a
worker imports as it starts.
"""

from __future__ import annotations

import dataclasses
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from async_signals.inspection.signals import ReceiverInfo, SignalInfo, signals

from .output import Output
from .project import find_app, load_modules


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument(
        "pattern", nargs="?", help="Only signals whose name is like this (* and ? stand for anything) or begins so."
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one signal a line.")


def run(output: Output, *, pattern: str | None, as_json: bool, **_: Any) -> None:
    """Prints one row for each receiver."""
    app = find_app()
    load_modules(app, output)
    found = signals(app, pattern)
    if as_json:
        for signal in found:
            output.json(dataclasses.asdict(signal))
        return
    headings = ("SIGNAL", "QUEUE", "RECEIVER", "SENDER", "OPTIONS", "WHERE")
    nothing = "No signals" if pattern is None else f"No signal is like {pattern}"
    output.table(headings, _rows(found), nothing)


def _rows(found: Iterator[SignalInfo]) -> Iterator[tuple[Any, ...]]:
    for signal in found:
        queue = signal.queue or "?"
        if not signal.receivers:
            yield signal.name, queue, "(nobody listens)", None, _options(signal, None), _place(signal.file, signal.line)
        for number, receiver in enumerate(signal.receivers):
            yield (
                signal.name if number == 0 else "",
                queue if number == 0 else "",
                receiver.name,
                receiver.sender or "*",
                _options(signal, receiver),
                _place(receiver.file, receiver.line),
            )


def _options(signal: SignalInfo, receiver: ReceiverInfo | None) -> str:
    said = []
    if signal.durability == "background":
        said.append("background")
    if signal.when_paused == "refuse":
        said.append("when_paused=refuse")
    if signal.priority is not None:
        said.append(f"priority={signal.priority}")
    if signal.expires is not None:
        said.append(f"expires={signal.expires:g}s")
    if receiver is not None:
        if receiver.retry is not None:
            said.append(f"retry={receiver.retry['max']}")
        if receiver.once:
            said.append("once")
        if receiver.is_async:
            said.append("async")
    return " ".join(said) or "-"


def _place(file: str | None, line: int | None) -> str | None:
    if file is None:
        return None
    near = os.path.relpath(file)
    return f"{file if near.startswith('..') else near}:{line}"
