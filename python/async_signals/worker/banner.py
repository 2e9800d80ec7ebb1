"""What a worker shows as it starts: broker, queues, processes, and the signals with their receivers."""

from __future__ import annotations

import sys
from importlib.metadata import version

from celery import Celery

from async_signals import names
from async_signals.dispatcher import AsyncSignal
from async_signals.receivers import receiver_name

from .options import Options

#: Receivers that are named for one signal; of more, only how many.
_NAMED = 8


def show(app: Celery, options: Options) -> None:
    """Prints it to where the program prints, before the log begins."""
    print(text(app, options), file=sys.__stdout__, flush=True)


def text(app: Celery, options: Options) -> str:
    """The lines of it."""
    signals = names.known()
    rows = [
        ("app", f"{app.main or '?'} ({type(app.loader).__module__})"),
        ("broker", app.connection_for_read().as_uri()),
        ("queues", ", ".join(app.amqp.queues.consume_from)),
        ("runs in", f"{_count(options.concurrency, 'process', 'processes')} × {_count(options.threads, 'thread')}"),
        ("task events", "on" if options.task_events else "off (-E turns them on)"),
    ]
    lines = [f"async-signals {version('django-async-signals')}, worker {options.hostname}", ""]
    lines += [f"  {name:<12} {value}" for name, value in rows]
    lines += ["", f"  {_count(len(signals), 'signal')}{':' if signals else ' is known here'}"]
    width = max((len(signal.name) for signal in signals), default=0)
    lines += [f"    {signal.name:<{width}}  {_receivers(signal)}" for signal in signals]
    return "\n".join(["", *lines, ""])


def _receivers(signal: AsyncSignal) -> str:
    found = [receiver_name(receiver) for receiver in signal._connected_receivers()]
    if len(found) > _NAMED:
        return f"{', '.join(found[:_NAMED])} and {len(found) - _NAMED} more"
    return ", ".join(found) or "no receivers here"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
