"""Resume signals or queues that are paused, and send on what has waited.

It first waits until every worker knows, which takes some seconds.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import DatabaseError

from async_signals import names, pauses, settings
from async_signals.errors import SignalNotSent
from async_signals.inspection.dead_letters import DeadLetter, DeadLetterQueue
from async_signals.routing import NotNative

from .output import Output
from .pause import add_kind, refusal
from .project import load_modules, look_at, the_app

#: How long it takes at most until no worker puts anything aside any more, in seconds: a look, and a message in hand.
_SETTLED = pauses.INTERVAL + 2.0
#: How many reasons are told why a message stays where it is.
_MOST_REASONS = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument(
        "names", nargs="*", metavar="name", help="Signals or queues; without any, send on what is paused no longer."
    )
    add_kind(parser)
    parser.add_argument("--all", action="store_true", dest="every", help="All that is paused.")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one message a line.")


def run(output: Output, *, names: list[str], kind: str | None, every: bool, as_json: bool, **_: Any) -> None:
    """Resumes, and sends on."""
    if names and every:
        raise CommandError("either names or --all", returncode=2)
    app = the_app()
    load_modules(app, output)
    try:
        if names or every:
            _end(output, names, kind, as_json)
        if not settings.get().enabled:
            output.note("ASYNC_SIGNALS['enabled'] is False: every signal stays paused")
            return
        if names or every:
            _wait_until_known(output)
        paused = pauses.look()
    except (DatabaseError, ImproperlyConfigured) as error:
        raise refusal(error) from error
    with look_at(app) as look:
        try:
            moved, failed = _send_on(output, DeadLetterQueue(app, pauses.queue_aside(app), look), paused, as_json)
        except (NotNative, SignalNotSent) as error:
            raise CommandError(str(error)) from error
    if not as_json:
        told = f"{moved:,} sent on" if moved else "Nothing had to be sent on"
        output.line(told + (f", {failed:,} stay" if failed else ""))
    if failed:
        sys.exit(1)


def _end(output: Output, wanted: list[str], kind: str | None, as_json: bool) -> None:
    missing = set(wanted)
    found = []
    for row in pauses.pauses():
        known = names.find(row.name) if row.kind == "signal" else None
        meant = set(wanted) & set(pauses.names_of(known, row.name))
        if (not wanted or meant) and kind in (None, row.kind):
            found.append(row)
            missing -= meant
    if missing:
        raise CommandError(f"not paused: {', '.join(sorted(missing))} (`signals pause` lists what is)")
    for row in found:
        pauses.resume(row.kind, row.name)
        if not as_json:
            output.line(f"{row} is resumed")


def _wait_until_known(output: Output) -> None:
    # Whoever does not know yet would put all of it aside again.
    output.note(f"Waiting {_SETTLED:g} s until every worker knows")
    with output.progress("Seconds", round(_SETTLED)) as progress:
        for _ in range(round(_SETTLED)):
            time.sleep(1)
            progress.advance(1)


def _send_on(output: Output, queue: DeadLetterQueue, paused: pauses.Paused, as_json: bool) -> tuple[int, int]:
    """Sends on what is paused no longer; returns how many went on, and how many could not."""
    moved = failed = 0
    with output.progress("Sending on what has waited", queue.count()) as progress:
        for page in queue.scan():
            for number, letter in page.letters():
                if paused.covers(_names_of(letter), letter.queue):
                    continue
                try:
                    page.replay(number)
                except ConnectionError as error:
                    raise CommandError(f"{letter.id or '?'} in {queue.name}: {error}") from error
                except (SignalNotSent, ValueError) as error:
                    failed += 1
                    if failed <= _MOST_REASONS:
                        output.note(f"{letter.id or '?'} stays in {queue.name}: {error}")
                else:
                    moved += 1
                    if as_json:
                        output.json({"id": letter.id, "signal": letter.signal, "queue": letter.queue})
            progress.advance(page.examined)
    if failed > _MOST_REASONS:
        output.note(f"{failed - _MOST_REASONS:,} more stay, for reasons such as these")
    if queue.not_seen:
        output.note(
            f"{queue.not_seen:,} of {queue.name} were not looked at: somebody else holds them, or more than 65,535 "
            f"before them are still paused, which RabbitMQ gives one consumer at most"
        )
    return moved, failed + queue.not_seen


def _names_of(letter: DeadLetter) -> tuple[str, ...]:
    return pauses.names_of(names.find(letter.signal or ""), letter.signal or "")
