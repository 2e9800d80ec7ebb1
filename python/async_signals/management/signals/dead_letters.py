"""List dead letters, show one, send them again, or discard them.

A dead letter is a message that no worker could run, or whose receivers failed in all of their tries.
"""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from async_signals import settings
from async_signals.errors import SignalNotSent
from async_signals.inspection.dead_letters import (
    MOST_TAKEN,
    DeadLetter,
    DeadLetterQueue,
    Filter,
    ScannedPage,
    dead_letter_queues,
)
from async_signals.inspection.queues import QueueLook
from async_signals.routing import NotNative

from .output import Output
from .project import load_modules, look_at, the_app

if TYPE_CHECKING:
    from celery import Celery

#: How many reasons are told why a message stays where it is.
_MOST_REASONS = 10
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    listing = actions.add_parser("list", help="List them, oldest first, with the reason of each.")
    _add_filter(listing)
    listing.add_argument("--limit", type=_positive, metavar="N", help="List so many at most.")
    _add_json(listing)
    show = actions.add_parser("show", help="Show one whole, with its arguments and the failures of its receivers.")
    show.add_argument("id", help="The task's id.")
    _add_queue(show)
    replay = actions.add_parser(
        "replay", help="Send them again, each to the queue that it came from, for the receivers that failed."
    )
    _add_choice(replay)
    discard = actions.add_parser("discard", aliases=["purge"], help="Discard them: they are gone.")
    _add_choice(discard)
    discard.add_argument("-y", "--yes", action="store_true", help="Do not ask.")


def _add_queue(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-Q", "--queue", help="The queue whose dead letters are meant; else all that the settings and signals name."
    )


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one message a line.")


def _add_filter(parser: ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument("--signal", help="Only those of this signal.")
    parser.add_argument("--receiver", help="Only those that this receiver failed for, by its name in `signals list`.")
    parser.add_argument("--exception", help="Only those in whose reason this exception is named: TimeoutError.")
    parser.add_argument("--older-than", type=_seconds, metavar="AGE", help="Only older ones: 90s, 15min, 2h, 7d.")
    parser.add_argument("--newer-than", type=_seconds, metavar="AGE", help="Only newer ones.")


def _add_choice(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="id", help="The tasks' ids.")
    parser.add_argument("--all", action="store_true", dest="every", help="All of them.")
    parser.add_argument("--limit", type=_positive, metavar="N", help="So many at most, the oldest first.")
    _add_filter(parser)
    _add_json(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no age; write it as 90s, 15min, 2h or 7d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def run(output: Output, *, action: str, **options: Any) -> None:
    """Does what the action says."""
    asked = Namespace(**options)
    if "every" in options:
        _check_choice(asked)
    app = the_app()
    load_modules(app, output)
    with look_at(app) as look:
        try:
            _ACTIONS[action](output, app, look, asked)
        except NotNative as error:
            raise CommandError(f"{error}; look into dead letters with your broker's own tools") from error
        except SignalNotSent as error:
            raise CommandError(str(error)) from error


def _list(output: Output, app: Celery, look: QueueLook, asked: Namespace) -> None:
    letters = _limited(_letters(output, _queues(app, look, asked), _filter(asked)), asked.limit)
    if asked.as_json:
        for letter in letters:
            output.json(letter.summary())
        return
    headings = ("DEAD-LETTERED", "QUEUE", "SIGNAL", "ID", "WHY")
    output.table(headings, map(_row, letters), "No dead letters")


def _letters(output: Output, queues: list[DeadLetterQueue], filter: Filter) -> Iterator[DeadLetter]:
    for queue in queues:
        for page in queue.pages(filter):
            yield from page.letters
            if page.is_cut:
                output.note(
                    f"{queue.name} holds more than the {MOST_TAKEN:,} oldest, which are all that RabbitMQ lets one "
                    f"look at; `signals dead replay` and `discard` go through all of them"
                )


def _limited(letters: Iterator[DeadLetter], limit: int | None) -> Iterator[DeadLetter]:
    for number, letter in enumerate(letters, 1):
        yield letter
        if number == limit:
            return


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    at = letter.dead_lettered_at
    return (
        "?" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        letter.dead_letter_queue,
        letter.signal or "?",
        letter.id or "?",
        f"{letter.kind or '?'}: {letter.reason or '?'}",
    )


def _show(output: Output, app: Celery, look: QueueLook, asked: Namespace) -> None:
    for letter in _letters(output, _queues(app, look, asked), Filter(ids=(asked.id,))):
        output.json(letter.as_dict(), indent=2)
        return
    raise CommandError(f"there is no dead letter {asked.id}")


def _replay(output: Output, app: Celery, look: QueueLook, asked: Namespace) -> None:
    def replay(page: ScannedPage, number: int, letter: DeadLetter) -> dict[str, Any]:
        return {"id": letter.id, "signal": letter.signal, "queue": page.replay(number)}

    _settle(output, app, look, asked, ("Sending again", "sent again"), replay)


def _discard(output: Output, app: Celery, look: QueueLook, asked: Namespace) -> None:
    if not asked.yes:
        if not sys.stdin.isatty():
            raise CommandError("nobody can be asked here; give --yes to discard these messages")
        if input("Discard these messages? They are gone then. [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("nothing was discarded")

    def discard(page: ScannedPage, number: int, letter: DeadLetter) -> dict[str, Any]:
        page.discard(number)
        return {"id": letter.id, "signal": letter.signal}

    _settle(output, app, look, asked, ("Discarding", "discarded"), discard)


def _settle(
    output: Output,
    app: Celery,
    look: QueueLook,
    asked: Namespace,
    words: tuple[str, str],
    settle: Callable[[ScannedPage, int, DeadLetter], dict[str, Any]],
) -> None:
    wanted, doing, done_word = _filter(asked), *words
    done = failed = 0
    left = set(asked.ids)

    def is_enough() -> bool:
        return (bool(asked.ids) and not left) or (asked.limit is not None and done >= asked.limit)

    for queue in _queues(app, look, asked):
        with output.progress(f"{doing} ({queue.name})", queue.count()) as progress:
            for page in queue.scan(wanted):
                for number, letter in page.letters():
                    if is_enough():
                        break
                    try:
                        settled = settle(page, number, letter)
                    except ConnectionError as error:
                        raise CommandError(f"{letter.id or '?'} in {queue.name}: {error}") from error
                    except (SignalNotSent, ValueError) as error:
                        failed += 1
                        if failed <= _MOST_REASONS:
                            output.note(f"{letter.id or '?'} stays in {queue.name}: {error}")
                    else:
                        done += 1
                        left.discard(letter.id)
                        if asked.as_json:
                            output.json(settled)
                progress.advance(page.examined)
                if is_enough():
                    break
        if is_enough():
            break
        if queue.not_seen:
            failed += queue.not_seen
            output.note(
                f"{queue.not_seen:,} of {queue.name} were not looked at: somebody else holds them, or more than 65,535 "
                f"before them are not meant, which RabbitMQ gives one consumer at most; discard or replay those first"
            )
    if failed > _MOST_REASONS:
        output.note(f"{failed - _MOST_REASONS:,} more stay, for reasons such as these")
    if not asked.as_json:
        output.line(f"{done:,} {done_word}" + (f", {failed:,} stay" if failed else ""))
    if left:
        raise CommandError(f"there is no dead letter {', '.join(sorted(left))}")
    if failed:
        sys.exit(1)


def _check_choice(asked: Namespace) -> None:
    filters = (asked.signal, asked.receiver, asked.exception, asked.older_than, asked.newer_than)
    filtered = any(given is not None for given in filters)
    if bool(asked.ids) == (asked.every or filtered):
        raise CommandError(
            "say which ones: the ids of messages; or --signal, --receiver, --exception, --older-than or --newer-than; "
            "or --all",
            returncode=2,
        )


def _filter(asked: Namespace) -> Filter:
    now = time.time()
    return Filter(
        ids=tuple(getattr(asked, "ids", ())),
        signal=asked.signal,
        receiver=asked.receiver,
        exception=asked.exception,
        before=None if asked.older_than is None else now - asked.older_than,
        since=None if asked.newer_than is None else now - asked.newer_than,
    )


def _queues(app: Celery, look: QueueLook, asked: Namespace) -> list[DeadLetterQueue]:
    found = dead_letter_queues(app, asked.queue)
    if not found and settings.get().dead_letters is False:
        raise CommandError("ASYNC_SIGNALS['dead_letters'] is False: nothing is dead-lettered")
    return [DeadLetterQueue(app, name, look) for name in found]


_ACTIONS: dict[str, Callable[[Output, Celery, QueueLook, Namespace], None]] = {
    "list": _list,
    "show": _show,
    "replay": _replay,
    "discard": _discard,
    "purge": _discard,
}
