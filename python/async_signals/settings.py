"""``ASYNC_SIGNALS`` in Django's settings: what Celery has no setting for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

DURABILITIES = ("confirmed", "background")
WHEN_PAUSED = ("keep", "refuse")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings and their defaults. Times are in seconds, sizes in bytes."""

    #: The Celery app, or its dotted path. None: the current app, else the one app that has a broker.
    app: Any = None
    #: How sure a send is before it returns: "confirmed" or "background".
    durability: str = "confirmed"
    #: How long a send may take, connecting included.
    publish_timeout: float = 5.0
    #: How many background signals may wait for the broker.
    buffer_size: int = 10_000
    #: How long a background send waits for room in a full buffer.
    buffer_timeout: float = 0.1
    #: How long the process' exit waits for background signals.
    flush_timeout: float = 5.0
    #: How large an encoded signal may be.
    max_message_size: int = 1024 * 1024
    #: How often a signal is taken by workers that die of it before it is dead-lettered; by stock workers 50 at least.
    max_deliveries: int = 5
    #: Where signals are dead-lettered that no worker can run: a queue's name, in which {queue} stands for
    #: the queue they came from. False: they are rejected instead.
    dead_letters: str | bool = "{queue}.dead"
    #: How many dead-lettered signals a queue keeps at most, where the broker can bound it; None: all.
    dead_letters_max_length: int | None = 100_000
    #: How long a dead-lettered signal is kept, where the broker can bound it; None: for ever.
    dead_letters_max_age: float | None = 30 * 24 * 3600.0
    #: For how long it is kept which receivers ran for a message (once=True); it must not come again later.
    once_max_age: float = 7 * 24 * 3600.0
    #: Whether signals of a transaction wait for its commit.
    on_commit: bool = True
    #: Whether signals are sent and run; False: every signal is paused.
    enabled: bool = True
    #: What becomes of sends of a paused signal: "keep", a queue keeps them; "refuse", each raises SignalNotSent.
    when_paused: str = "keep"
    #: Called with (signal, id, exception) for each signal that was accepted but could not be sent later on.
    on_failure: Callable[[Any, str, BaseException], None] | str | None = None

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ImproperlyConfigured(
                f"ASYNC_SIGNALS['durability'] is {self.durability!r}; use one of {', '.join(map(repr, DURABILITIES))}"
            )
        if self.when_paused not in WHEN_PAUSED:
            raise ImproperlyConfigured(
                f"ASYNC_SIGNALS['when_paused'] is {self.when_paused!r}; use one of {', '.join(map(repr, WHEN_PAUSED))}"
            )
        if not isinstance(self.enabled, bool):
            raise ImproperlyConfigured(f"ASYNC_SIGNALS['enabled'] is {self.enabled!r}; use True or False")
        for name in ("publish_timeout", "buffer_size", "max_message_size", "max_deliveries", "once_max_age"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise ImproperlyConfigured(f"ASYNC_SIGNALS[{name!r}] is {value!r}; use a number above 0")
        for name in ("buffer_timeout", "flush_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ImproperlyConfigured(f"ASYNC_SIGNALS[{name!r}] is {value!r}; use a number of seconds")
        if self.dead_letters is not False and not _is_queue_name(self.dead_letters):
            raise ImproperlyConfigured(
                f"ASYNC_SIGNALS['dead_letters'] is {self.dead_letters!r}; use a queue's name such as "
                f"'{{queue}}.dead', in which {{queue}} alone stands for something, or False"
            )

    def dead_letter_queue(self, queue: str) -> str | None:
        """The name of the queue where signals of ``queue`` are dead-lettered."""
        return self.dead_letters.replace("{queue}", queue) if isinstance(self.dead_letters, str) else None


def _is_queue_name(value: Any) -> bool:
    """Whether it is a queue's name, in which {queue} may stand for another's."""
    return isinstance(value, str) and bool(value) and not {"{", "}"} & set(value.replace("{queue}", ""))


_current: Settings | None = None
#: Grows whenever something changed that a signal's way out may depend on.
generation = 0


def get() -> Settings:
    """The settings, read once and again after each change of Django's."""
    global _current
    if _current is None:
        given = getattr(django_settings, "ASYNC_SIGNALS", None) if django_settings.configured else None
        _current = _read(given or {})
    return _current


def _read(given: Mapping[str, Any]) -> Settings:
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"ASYNC_SIGNALS must be a dict, not {type(given).__name__}")
    known = {field.name for field in dataclasses.fields(Settings)}
    unknown = [str(name) for name in given if name not in known]
    if unknown:
        raise ImproperlyConfigured(
            f"ASYNC_SIGNALS has no setting {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}"
        )
    return Settings(**given)


def forget(**_: Any) -> None:
    """Makes everything that was derived from settings be derived anew."""
    global _current, generation
    _current = None
    generation += 1


setting_changed.connect(forget, dispatch_uid="async_signals.settings")
