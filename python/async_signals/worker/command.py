"""``async-signals worker``: the flags."""

from __future__ import annotations

from typing import Any

import click
from celery import Celery
from celery.utils.nodenames import default_nodename, host_format, node_format

from .options import level

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")
_POSITIVE = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, min_open=True)


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def _hostname(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    return str(host_format(default_nodename(value)))


def _prefork(_context: click.Context, _parameter: click.Parameter, value: str) -> None:
    if value not in {"prefork", "processes"}:
        raise click.BadParameter(
            f"{value!r} is not there: this worker runs processes (-c), with threads in each (--threads)"
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-Q", "--queues", callback=_names, help="The queues to read, with commas between; all of the app's.")
@click.option("-X", "--exclude-queues", callback=_names, help="Queues not to read, with commas between.")
@click.option("-c", "--concurrency", type=_POSITIVE, help="How many processes; one for each processor.")
@click.option("--threads", type=_POSITIVE, default=1, show_default=True, help="How many threads in each process.")
@click.option("-n", "--hostname", callback=_hostname, help="The worker's name: %h host, %n name, %d domain.")
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="WARNING",
    show_default=True,
    help="What is told.",
)
@click.option("-f", "--logfile", type=click.Path(), help="Where it is told; the standard error.")
@click.option("-E", "--task-events", "--events", is_flag=True, default=None, help="Send task events, for monitors.")
@click.option("--max-tasks-per-child", type=_POSITIVE, help="Replace a process after so many messages.")
@click.option(
    "--time-limit", type=_SECONDS, help="Seconds after which a message is dead-lettered and its process ends."
)
@click.option("--soft-time-limit", type=_SECONDS, help="Seconds after which a receiver gets SoftTimeLimitExceeded.")
@click.option("--prefetch-multiplier", type=click.IntRange(min=0), help="Messages taken ahead for each slow thread.")
@click.option("--pidfile", type=click.Path(), help="Where the process id is written; no second worker has it.")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that a stop waits for receivers; what is not finished by then goes back.",
)
@click.option("--without-heartbeat", is_flag=True, help="Do not tell monitors that it is there.")
@click.option("--without-gossip", is_flag=True, expose_value=False, help="Celery's; there is none here.")
@click.option("--without-mingle", is_flag=True, expose_value=False, help="Celery's; there is none here.")
@click.option("-P", "--pool", default="prefork", callback=_prefork, expose_value=False, help="Celery's; only prefork.")
@click.pass_context
def worker(context: click.Context, /, without_heartbeat: bool, **flags: Any) -> None:
    """Run the receivers of signals, and the app's other tasks that lie on the same queues.

    SIGTERM and SIGINT stop it when what it has is done, a second one stops it at once; SIGHUP replaces its processes.
    """
    from .program import Program

    app = context.obj
    if not isinstance(app, Celery):
        raise click.UsageError("which app? Name it: async-signals -A proj worker", context)
    flags["loglevel"] = level(flags["loglevel"])
    flags["heartbeat"] = not without_heartbeat
    if flags["pidfile"]:
        flags["pidfile"] = node_format(flags["pidfile"], flags["hostname"])
    context.exit(Program(app, flags).run())
