"""``async-signals dead``: looking into dead-letter queues, sending their messages again, throwing them away."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import django
from django.apps import apps

from . import settings
from ._native import DeadLetterQueue
from .errors import SignalNotSent
from .publishing.broker import broker_options
from .queues import named_queues
from .routing import NotNative

if TYPE_CHECKING:
    from celery import Celery

#: How many letters one command looks at, unless it is told otherwise.
_LIMIT = 1000


class DeadLetters:
    """The messages of one dead-letter queue. Those neither sent again nor thrown away go back.

    Attributes:
        queue: The dead-letter queue's name.
        found: The letters, oldest first, as the core describes them.
    """

    def __init__(self, app: Celery, queue: str, limit: int) -> None:
        self.queue = queue
        self._native = DeadLetterQueue(
            **broker_options(app), queue=queue, timeout=float(settings.get().publish_timeout)
        )
        try:
            self.found: list[dict[str, Any]] = [json.loads(text) for text in self._native.letters(limit)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._native.close()

    def select(self, ids: tuple[str, ...], signal: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Those that are meant, with their numbers."""
        for number, letter in enumerate(self.found):
            if (not ids or letter["id"] in ids) and (signal is None or letter["signal"] == signal):
                yield number, letter

    def replay(self, number: int) -> str:
        """Sends one again, and returns the queue that it went to."""
        return self._native.replay(number)

    def purge(self, number: int) -> None:
        """Throws one away."""
        self._native.purge(number)


def queues_of(app: Celery, queue: str | None) -> list[str]:
    """The dead-letter queues of one queue, or of all that the app and its signals name."""
    options = settings.get()
    if queue is None:
        _set_up_django()
    known = [queue] if queue else named_queues(app)
    names = dict.fromkeys(options.dead_letter_queue(name) for name in known)
    found = [name for name in names if name is not None]
    if not found:
        raise click.ClickException("ASYNC_SIGNALS['dead_letters'] is False: nothing is dead-lettered")
    return found


def _set_up_django() -> None:
    """Has the project's apps imported, and with them its signals: a worker does so as it starts."""
    if apps.ready:
        return
    try:
        django.setup()
    except Exception as error:
        click.echo(f"the queues of signals are not known, since the project does not load: {error!r}", err=True)


def open_queues(app: Celery, queue: str | None, limit: int) -> Iterator[DeadLetters]:
    """Every dead-letter queue that is there, one after the other."""
    for name in queues_of(app, queue):
        try:
            letters = DeadLetters(app, name, limit)
        except NotNative as error:
            raise click.ClickException(f"{error}; look into {name} with your broker's own tools") from error
        except SignalNotSent as error:
            if error.code == "queue_missing":  # nothing was ever dead-lettered there
                continue
            raise click.ClickException(str(error)) from error
        with closing(letters):
            yield letters


@click.group("dead")
def dead() -> None:
    """Look into dead-letter queues, send their messages again, throw them away."""


_queue = click.option(
    "-Q", "--queue", help="The queue whose dead letters are meant; all that the app and its signals name if not given."
)
_limit = click.option("--limit", default=_LIMIT, show_default=True, help="Look at so many of a queue, oldest first.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, instead of a table.")
_signal = click.option("--signal", help="Only those of this signal.")


@dead.command("list")
@_queue
@_limit
@_signal
@_json
@click.pass_obj
def list_(app: Celery, queue: str | None, limit: int, signal: str | None, as_json: bool) -> None:
    """List them, with the reason of each."""
    rows = []
    for letters in open_queues(app, queue, limit):
        for _, letter in letters.select((), signal):
            if as_json:
                click.echo(json.dumps({"dead_letter_queue": letters.queue, **_summary(letter)}))
            else:
                rows.append((letters.queue, letter))
    if not as_json:
        _table(rows)


@dead.command()
@click.argument("id")
@_queue
@_limit
@click.pass_obj
def show(app: Celery, id: str, queue: str | None, limit: int) -> None:
    """Show one whole, with its arguments and the failures of its receivers."""
    for letters in open_queues(app, queue, limit):
        for _, letter in letters.select((id,), None):
            click.echo(json.dumps({"dead_letter_queue": letters.queue, **letter}, indent=2, ensure_ascii=False))
            return
    raise click.ClickException(f"there is no dead letter {id}")


@dead.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_queue
@_limit
@_signal
@_json
@click.pass_obj
def replay(
    app: Celery, ids: tuple[str, ...], every: bool, queue: str | None, limit: int, signal: str | None, as_json: bool
) -> None:
    """Send them again, each to the queue that it came from, for the receivers that it was dead-lettered for.

    A message is taken out of the dead-letter queue once the broker has it in the other: at worst it is in both.
    """
    _check_choice(ids, every, signal)
    done = failed = 0
    for letters in open_queues(app, queue, limit):
        for number, letter in _with_progress(letters, ids, signal, "replaying"):
            try:
                went_to = letters.replay(number)
            except (SignalNotSent, ValueError) as error:
                failed += 1
                click.echo(f"{letter['id']} stays in {letters.queue}: {error}", err=True)
            else:
                done += 1
                if as_json:
                    click.echo(json.dumps({"id": letter["id"], "signal": letter["signal"], "queue": went_to}))
    _report("sent again", done, failed, ids, as_json)


@dead.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_queue
@_limit
@_signal
@_json
@click.pass_obj
def purge(
    app: Celery,
    ids: tuple[str, ...],
    every: bool,
    yes: bool,
    queue: str | None,
    limit: int,
    signal: str | None,
    as_json: bool,
) -> None:
    """Throw them away, for good."""
    _check_choice(ids, every, signal)
    if not yes:
        click.confirm("Throw these messages away for good?", abort=True, err=True)
    done = 0
    for letters in open_queues(app, queue, limit):
        for number, letter in _with_progress(letters, ids, signal, "throwing away"):
            letters.purge(number)
            done += 1
            if as_json:
                click.echo(json.dumps({"id": letter["id"], "signal": letter["signal"]}))
    _report("thrown away", done, 0, ids, as_json)


def _check_choice(ids: tuple[str, ...], every: bool, signal: str | None) -> None:
    if bool(ids) == (every or signal is not None):
        raise click.UsageError("name the ids of the messages, or give --signal, or --all of them")


def _with_progress(
    letters: DeadLetters, ids: tuple[str, ...], signal: str | None, label: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    chosen = list(letters.select(ids, signal))
    with click.progressbar(chosen, label=f"{label} ({letters.queue})", file=sys.stderr) as bar:
        yield from bar


def _report(what: str, done: int, failed: int, ids: tuple[str, ...], as_json: bool) -> None:
    if not as_json:
        click.echo(f"{done} {what}" + (f", {failed} stay" if failed else ""))
    if failed or done < len(ids):
        raise click.exceptions.Exit(1)


def _summary(letter: dict[str, Any]) -> dict[str, Any]:
    """One line's worth: no arguments, which may be personal data."""
    why = letter["parked"]
    return {
        "id": letter["id"],
        "signal": letter["signal"],
        "kind": why.get("kind"),
        "reason": why.get("reason"),
        "queue": why.get("queue"),
        "dead_lettered_at": why.get("at"),
        "receivers": [failure.get("receiver") for failure in why.get("failures", ())],
    }


def _table(rows: list[tuple[str, dict[str, Any]]]) -> None:
    if not rows:
        click.echo("no dead letters")
        return
    lines = [("dead-lettered at", "queue", "signal", "id", "why")]
    for queue, letter in rows:
        summary = _summary(letter)
        at = summary["dead_lettered_at"]
        when = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if isinstance(at, (int, float)) else "?"
        why = f"{summary['kind'] or '?'}: {summary['reason'] or '?'}"
        lines.append((when, queue, summary["signal"] or "?", summary["id"] or "?", why))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    room = max(20, shutil.get_terminal_size((200, 24)).columns - sum(widths) - 8)
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        why = line[4] if len(line[4]) <= room else line[4][: room - 1] + "…"
        click.echo("  ".join([*cells, why]).rstrip())
