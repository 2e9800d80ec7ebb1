"""``manage.py signals``: what a project's signals are, where they wait, and what has become of them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from async_signals.management.signals import SUBCOMMANDS, worker
from async_signals.management.signals.output import Output


class Command(BaseCommand):
    """One command, with one subcommand for each question.

    Exit codes: 0, all is well; 1, something was not found, or is not as it should be; 2, wrong arguments.
    """

    help = "Lists signals, receivers, queues and dead letters, and says what keeps a signal from its receivers."
    # It is what one calls when something is wrong: a check that fails must not keep it from saying so.
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Leaves the worker's arguments to the worker: its options are Celery's, some of them with Django's names."""
        if argv[2:3] == ["worker"]:
            worker.run_from_argv(argv)
        else:
            super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        """One parser for each subcommand."""
        parsers = parser.add_subparsers(dest="subcommand", metavar="command", required=True)
        for name, subcommand in SUBCOMMANDS.items():
            short = (subcommand.__doc__ or "").strip().splitlines()[0]
            subcommand.add_arguments(parsers.add_parser(name, help=short, description=subcommand.__doc__))

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """Hands over to the subcommand."""
        output = Output(self.stdout, self.stderr)
        with output.until_nobody_reads():
            SUBCOMMANDS[subcommand].run(output, **options)
