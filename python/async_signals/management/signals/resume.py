"""Resume signals or queues that are paused, and send on what has waited.

It first waits until every worker knows, which takes some seconds.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import DatabaseError

from async_signals import pauses, settings
from async_signals.errors import SignalNotSent
from async_signals.inspection.pauses import resumable, waiting
from async_signals.inspection.queues import QueueLook, paused_queue
from async_signals.routing import NotNative

from .output import Output
from .pause import add_kind, real_name, refusal
from .project import load_modules, look_at, the_app

if TYPE_CHECKING:
    from celery import Celery

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
        paused = pauses.look() if settings.get().enabled else pauses.Paused(everything=True)
    except (DatabaseError, ImproperlyConfigured) as error:
        raise refusal(error) from error
    if paused.everything:
        output.note("ASYNC_SIGNALS['enabled'] is False: every signal stays paused")
        return
    with look_at(app) as look:
        try:
            moved, failed = _send_on(output, app, look, paused, as_json)
        except (NotNative, SignalNotSent) as error:
            raise CommandError(str(error)) from error
    if not as_json:
        output.line(f"{moved:,} sent on" + (f", {failed:,} stay" if failed else ""))
    if failed:
        sys.exit(1)


def _end(output: Output, names: list[str], kind: str | None, as_json: bool) -> None:
    wanted = {real_name(kind, name) for name in names}
    found = [row for row in pauses.pauses() if not names or (row.name in wanted and kind in (None, row.kind))]
    missing = wanted - {row.name for row in found}
    if missing:
        raise CommandError(f"not paused: {', '.join(sorted(missing))} (`signals pause` lists what is)")
    for row in found:
        pauses.resume(row.kind, row.name)
        if not as_json:
            output.line(f"{row} is resumed")


def _send_on(output: Output, app: Celery, look: QueueLook, paused: pauses.Paused, as_json: bool) -> tuple[int, int]:
    """Sends on what is paused no longer; returns how many went on, and how many could not."""
    # Whoever does not know yet would put all of it aside again.
    with output.progress("Waiting until every worker knows, seconds", round(_SETTLED)) as progress:
        for _ in range(round(_SETTLED)):
            time.sleep(1)
            progress.advance(1)
    moved, reasons = 0, list[str]()
    waits = waiting(app, look)
    with output.progress("Sending on what has waited", sum(waits.values())) as progress:
        for queue in waits:
            for page, found in resumable(app, look, queue, paused):
                for number, letter in found:
                    try:
                        page.replay(number)
                    except ConnectionError as error:
                        raise CommandError(f"{letter.id or '?'} in {paused_queue(queue)}: {error}") from error
                    except (SignalNotSent, ValueError) as error:
                        reasons.append(f"{letter.id or '?'} stays in {paused_queue(queue)}: {error}")
                    else:
                        moved += 1
                        if as_json:
                            output.json({"id": letter.id, "signal": letter.signal, "queue": letter.queue})
                progress.advance(page.examined)
    for reason in reasons[:_MOST_REASONS]:
        output.note(reason)
    if len(reasons) > _MOST_REASONS:
        output.note(f"{len(reasons) - _MOST_REASONS:,} more stay, for reasons such as these")
    return moved, len(reasons)
