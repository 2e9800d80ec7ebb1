"""The subcommands of ``manage.py signals``, one a module."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Protocol

from . import dead_letters, doctor, graph, listing, pause, queues, resume, tail, worker
from .output import Output


class Subcommand(Protocol):
    """A module with a subcommand: its docstring is its help."""

    __doc__: str | None

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Adds what the subcommand takes."""

    def run(self, output: Output, /, *args: Any, **options: Any) -> None:
        """Does it."""


SUBCOMMANDS: dict[str, Subcommand] = {
    "list": listing,
    "queues": queues,
    "tail": tail,
    "doctor": doctor,
    "dead": dead_letters,
    "pause": pause,
    "resume": resume,
    "graph": graph,
    "worker": worker,
}
