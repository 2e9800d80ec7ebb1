"""Run the receivers of signals: `async-signals worker`, with the project's Celery app.

All of its options: `manage.py signals worker --help`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from .output import Output
from .project import the_app

#: What Django's own `manage.py` has read already, wherever it stood.
_DJANGOS = ("--settings", "--pythonpath")


def run_from_argv(argv: list[str]) -> None:
    """Runs it with its own arguments, which stand behind those that brought us here."""
    from async_signals.worker.command import worker

    try:
        app = the_app()
    except CommandError as error:
        sys.stderr.write(f"CommandError: {error}\n")
        sys.exit(error.returncode)
    worker.main(_without_djangos(argv[3:]), prog_name=" ".join(["manage.py", *argv[1:3]]), obj=app)


def _without_djangos(arguments: list[str]) -> list[str]:
    left: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument in _DJANGOS:
            next(given, None)
        elif argument.partition("=")[0] not in _DJANGOS:
            left.append(argument)
    return left


def add_arguments(parser: ArgumentParser) -> None:
    """Takes nothing: see `run_from_argv`."""


def run(_output: Output, **_: Any) -> None:
    """Is only reached from another program, or with options before its name."""
    raise CommandError("its options are its own: run manage.py signals worker, with all options behind it")
