"""Run the receivers of signals: `async-signals worker`, with the project's Celery app.

All of its options: `manage.py signals worker --help`.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from .output import Output
from .project import the_app


def run_from_argv(argv: list[str]) -> None:
    """Runs it with its own arguments, which stand behind those that brought us here."""
    from async_signals.worker.command import worker

    worker.main(argv[3:], prog_name=" ".join(["manage.py", *argv[1:3]]), obj=the_app())


def add_arguments(parser: ArgumentParser) -> None:
    """Takes nothing: see `run_from_argv`."""


def run(_output: Output, **_: Any) -> None:
    """Is only reached from another program."""
    raise CommandError("a worker is a process of its own: run manage.py signals worker, or async-signals worker")
