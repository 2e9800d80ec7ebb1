"""Follow what is sent, where it waits, and what ran, as it happens.

It shows Celery's events, as Flower and `celery events` do. Workers send them with -E, or when --enable-events asks them
to; senders with CELERY_TASK_SEND_SENT_EVENT = True. Ctrl-C ends it.
"""

from __future__ import annotations

import dataclasses
import time
from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.core.management.base import CommandError

from async_signals.errors import SignalNotSent
from async_signals.inspection.activity import Activity, Listener

from .output import Output, one_line
from .project import the_app

#: After how many seconds without an event it is said how events are switched on.
_QUIET = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument(
        "pattern", nargs="?", help="Only signals whose name is like this (* and ? stand for anything) or begins so."
    )
    parser.add_argument("--enable-events", action="store_true", help="Have the workers send events, from now on.")
    parser.add_argument("--seconds", type=float, help="End after so many seconds.")
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one event a line.")


def run(
    output: Output, *, pattern: str | None, enable_events: bool, seconds: float | None, as_json: bool, **_: Any
) -> None:
    """Prints one line for each event."""
    try:
        with closing(Listener(the_app(), pattern)) as listener:
            if enable_events:
                listener.enable_events()
            _follow(output, listener, seconds, as_json)
    except SignalNotSent as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        pass


def _follow(output: Output, listener: Listener, seconds: float | None, as_json: bool) -> None:
    quiet_until: float | None = time.monotonic() + _QUIET
    output.note("Listening")
    for activity in listener.listen(seconds):
        if activity is None:
            if quiet_until is not None and time.monotonic() > quiet_until:
                quiet_until = None
                output.note(
                    "Nothing yet. Workers send events with -E, or by --enable-events here; senders with "
                    "CELERY_TASK_SEND_SENT_EVENT = True."
                )
            continue
        quiet_until = None
        if as_json:
            output.json(dataclasses.asdict(activity))
        else:
            output.line(one_line(_line(activity)))
        output.flush()


def _line(activity: Activity) -> str:
    at = activity.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    said = f"{at}  {activity.what:<9}  {activity.signal or '?'}[{activity.id}]"
    if activity.where is not None:
        said += f"  {'to' if activity.what == 'sent' else 'by'} {activity.where}"
    return said if activity.detail is None else f"{said}  {activity.detail}"
