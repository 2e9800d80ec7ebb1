"""``async-signals dead``: ``manage.py signals dead`` for whoever names the Celery app instead of Django's settings."""

from __future__ import annotations

from typing import Any

import click
import django
from celery import Celery
from django.apps import apps
from django.core.management.base import CommandParser

from .management.commands.signals import Command
from .management.signals import dead_letters
from .management.signals.output import Output


class _DeadCommand(Command):
    """The subcommand as a command of its own."""

    help = dead_letters.__doc__ or ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Adds what the subcommand takes."""
        dead_letters.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Does what the subcommand does."""
        output = Output(self.stdout, self.stderr)
        with output.until_nobody_reads():
            dead_letters.run(output, **options)


@click.command(
    "dead",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="List dead letters, show one, send them again, or discard them.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def dead(app: Celery | None, arguments: tuple[str, ...]) -> None:
    """Hands over to Django's command."""
    if app is not None:
        app.set_default()
        app.set_current()
    if not apps.ready:
        try:
            django.setup()
        except Exception as error:
            click.echo(f"the queues of signals are not known, since the project does not load: {error!r}", err=True)
    _DeadCommand().run_from_argv(["async-signals", "dead", *arguments])
