"""Print the signals and their receivers as a graph, in the DOT language.

``manage.py signals graph | dot -Tsvg > signals.svg`` draws it, with Graphviz.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from async_signals.inspection.signals import signals

from .output import Output
from .project import find_app, load_modules


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument(
        "pattern", nargs="?", help="Only signals whose name is like this (* and ? stand for anything) or begins so."
    )


def run(output: Output, *, pattern: str | None, **_: Any) -> None:
    """Prints queues, signals and receivers from left to right."""
    app = find_app()
    load_modules(app, output)
    output.line("digraph signals {")
    output.line("  rankdir=LR;")
    output.line("  node [fontname=Helvetica];")
    for signal in signals(app, pattern):
        node = f"signal {signal.name}"
        output.line(f"  {_quoted(node)} [label={_quoted(signal.name)}, shape=box];")
        if signal.queue is not None:
            queue = f"queue {signal.queue}"
            output.line(f"  {_quoted(queue)} [label={_quoted(signal.queue)}, shape=cds];")
            output.line(f"  {_quoted(node)} -> {_quoted(queue)} [style=dashed, arrowhead=none];")
        for receiver in signal.receivers:
            end = f"receiver {receiver.name}"
            output.line(f"  {_quoted(end)} [label={_quoted(receiver.name)}, shape=ellipse];")
            label = "" if receiver.sender is None else f" [label={_quoted(receiver.sender)}]"
            output.line(f"  {_quoted(node)} -> {_quoted(end)}{label};")
    output.line("}")


def _quoted(text: str) -> str:
    # A string of JSON is one of DOT, but for what stands behind a backslash.
    return json.dumps(text, ensure_ascii=False)
