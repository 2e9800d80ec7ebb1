"""The command line: ``async-signals``, or ``python -m async_signals``."""

from __future__ import annotations

import traceback
from importlib.metadata import version
from typing import Any

import click
from celery import Celery
from celery.app.utils import find_app

from .dead_letters import dead
from .worker.command import worker


def _load(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    """Makes the app that is named everybody's below; the last one that is named counts."""
    if name is None:
        return
    try:
        app = find_app(name)
    except ModuleNotFoundError as error:
        # What was asked for, or what it asks for itself?
        named = error.name is not None and f"{name.replace(':', '.')}.".startswith(f"{error.name}.")
        detail = f"there is no module {error.name!r}" if named else traceback.format_exc()
        raise click.UsageError(f"the app {name!r} cannot be imported: {detail}", context) from error
    except AttributeError as error:
        raise click.UsageError(f"the app {name!r} cannot be found: {error}", context) from error
    except Exception as error:
        raise click.UsageError(f"the app {name!r} cannot be imported: {traceback.format_exc()}", context) from error
    if not isinstance(app, Celery):
        raise click.UsageError(f"{name!r} is no Celery app but {app!r}", context)
    context.obj = app


def _app_option(**more: Any) -> click.Option:
    return click.Option(
        ["-A", "--app"],
        metavar="APP",
        help="The Celery app: the module that holds it, or module:attribute.",
        expose_value=False,
        callback=_load,
        **more,
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(version("django-async-signals"), prog_name="async-signals")
def main() -> None:
    """Django signals that are fired asynchronously, through Celery."""


main.params.append(_app_option(envvar="CELERY_APP"))
for _command in (worker, dead):
    _command.params.append(_app_option())
main.add_command(worker)
main.add_command(dead)

if __name__ == "__main__":
    main(prog_name="async-signals")
