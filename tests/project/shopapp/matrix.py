"""What Django and Rust tell each other: the same signals, values, senders and receivers as in tests/peer."""

import dataclasses
import datetime as dt
import enum
import json
import os
import struct
import sys
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from django.db import models
from django.dispatch import receiver

from async_signals import AsyncSignal, current_delivery
from shopapp.effects import record
from shopapp.models import Order

plain = AsyncSignal()
marked = AsyncSignal()
sent_by = AsyncSignal()
shaky = AsyncSignal()
one_sided = AsyncSignal()
counted = AsyncSignal()

#: Again and again: whoever may succeed gets it some time.
SOON = {"max": 100_000, "base": 0.05, "factor": 1, "jitter": False}


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass
class Line:
    sku: str
    price: Decimal
    parts: list["Line"]


class Shop: ...


def order() -> Order:
    """The row that is spoken of, without asking the database."""
    row = Order(pk=5, reference="row five")
    row._state.db, row._state.adding = "default", False
    return row


PLAIN: dict[str, Any] = {
    "nothing": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "negative": -7,
    "most": 2**63 - 1,
    "fraction": 0.1,
    "whole": 5.0,
    "tiny": 5e-324,
    "huge": sys.float_info.max,
    "minus_zero": -0.0,
    "empty": "",
    "text": 'Größe, 漢字, 😀, "quoted"\n\\\0',
    "items": [3, 1, 2],
    "no_items": [],
    "table": {"name": "ä", "count": 3},
    "nested": [
        {"name": "a", "rows": [[1, 2], []], "of": {"name": "ä", "count": -1}},
        {"name": "b", "rows": [], "of": None},
    ],
}

MARKED: dict[str, Any] = {
    "least": -(2**63),
    "past_63_bits": 2**64 - 1,
    "past_64_bits": 2**100,
    "far_below": -(2**63) - 1,
    "pair": (1, "one"),
    "single": ("alone",),
    "pairs_in_a_pair": ((1, 2), [3]),
    "tags": {"new", "gift", "ü"},
    "numbers": {3, 1, 2},
    "no_members": set(),
    "frozen": frozenset({2, 1}),
    "sets": {frozenset({1, 2}), frozenset()},
    "binary": b"\xff\x00\xd8",
    "readable": "text ü".encode(),
    "no_bytes": b"",
    "aware": dt.datetime(2020, 2, 29, 12, 30, 5, tzinfo=dt.UTC),
    "elsewhere": dt.datetime(1999, 12, 31, 23, 59, 59, 1, dt.timezone(dt.timedelta(hours=5, minutes=45))),
    "naive": dt.datetime(2020, 2, 29, 12, 30, 5),
    "naive_to_the_microsecond": dt.datetime(1, 1, 1, 0, 0, 0, 999_999),
    "day": dt.date(2020, 2, 29),
    "time": dt.time(9, 30),
    "time_to_the_microsecond": dt.time(23, 59, 59, 999_999),
    "short": dt.timedelta(microseconds=5),
    "back": dt.timedelta(days=-1, microseconds=5),
    "long": dt.timedelta(days=365, seconds=86399, microseconds=999_999),
    "no_time": dt.timedelta(),
    "price": Decimal("12.50"),
    "exponent": Decimal("1E+5"),
    "small": Decimal("-1E-28"),
    "less_than_nothing": Decimal("-0.00"),
    "digits": Decimal("3.14159265358979323846264338327950288419716939937510"),
    "id": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "color": Color.RED,
    "level": Level.HIGH,
    "rights": Right.READ | Right.WRITE,
    "line": Line("pen", Decimal("1.10"), [Line("ink", Decimal("0.05"), [])]),
    "order": order(),
    "by_number": {-2: "minus two", 1: "one"},
    "by_pair": {(1, "a"): 2},
    "by_day": {dt.date(2020, 2, 29): dt.time(9, 30)},
    "deep": [
        {"at": dt.datetime(2020, 2, 29, 12, 30, 5, tzinfo=dt.UTC), "tags": {"inside"}, "seat": ("A", 5)},
    ],
}

SENDERS: dict[str, Any] = {
    "anybody": None,
    "text": "web",
    "number": 7,
    "boolean": True,
    "class": Shop,
    "model": Order,
    "row": order(),
    "member": Color.GREEN,
}


def describe(value: Any) -> Any:
    """A value as JSON: the name of its type, and what tells it from all others of the type."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return ["enum", _label(kind), value.name if value.name in kind.__members__ else value.value]
    if dataclasses.is_dataclass(kind):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return ["dataclass", _label(kind), describe(fields)]
    if isinstance(value, models.Model):
        return ["row", value._meta.label, describe(value.pk), value._state.db]
    if isinstance(value, dt.timedelta):
        return [kind.__name__, value.days, value.seconds, value.microseconds]
    words: dict[type, Callable[[Any], Any]] = {
        float: lambda number: struct.pack(">d", number).hex(),
        bytes: bytes.hex,
        dt.datetime: dt.datetime.isoformat,
        dt.date: dt.date.isoformat,
        dt.time: dt.time.isoformat,
        list: lambda items: list(map(describe, items)),
        tuple: lambda items: list(map(describe, items)),
        set: lambda members: _sorted(map(describe, members)),
        frozenset: lambda members: _sorted(map(describe, members)),
        dict: lambda entries: _sorted([describe(key), describe(item)] for key, item in entries.items()),
        **dict.fromkeys([int, Decimal, uuid.UUID], str),
        **dict.fromkeys([type(None), bool, str], lambda same: same),
    }
    return [kind.__name__, words[kind](value)]


def _label(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _sorted(values: Iterable[Any]) -> list[Any]:
    """What has no order is put in the order of its text, as Rust writes it."""
    return sorted(values, key=lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def described() -> dict[str, Any]:
    """All values, by name."""
    return {name: describe(value) for name, value in {**PLAIN, **MARKED}.items()}


def send_all(by: str, queues: Iterable[str]) -> None:
    """Sends everything once to each queue."""
    for queue in queues:
        plain.options(queue=queue).send(by, **PLAIN)
        marked.options(queue=queue).send(by, **MARKED)
        for kind, sender in SENDERS.items():
            sent_by.options(queue=queue).send(sender, by=by, kind=kind)
        shaky.options(queue=queue).send(by, number=0, fails="once")


def note(receiver: str, sender: Any, **arguments: Any) -> int:
    """Records that a receiver runs, where and in which try, which it returns."""
    delivery = current_delivery()
    assert delivery is not None
    where = {"queue": delivery.queue, "attempt": delivery.attempt, "worker": os.environ.get("WORKER")}
    record(receiver, sender, **where, **arguments)
    return delivery.attempt


@receiver((plain, marked))
def told(sender: Any, signal: Any, **values: Any) -> None:
    # One line for each: a pipe takes only short ones in one piece.
    for name, value in values.items():
        note("told", sender, name=name, value=describe(value))
    if signal is marked:
        note("fetched", sender, reference=values["order"].reference)


def only_for(wanted: str) -> Callable[..., None]:
    def hears(sender: Any, by: str, kind: str, **kwargs: Any) -> None:
        same = type(sender) is type(SENDERS[kind]) and sender == SENDERS[kind]
        note("hears", by, wanted=wanted, kind=kind, same=same)

    return hears


for _kind, _sender in SENDERS.items():
    sent_by.connect(only_for(_kind), sender=_sender, weak=False)


@receiver(shaky)
def steady(sender: Any, number: int, **kwargs: Any) -> None:
    note("steady", sender, number=number)


@receiver(shaky, retry=SOON, dispatch_uid="matrix.shaky")
def tried(sender: Any, number: int, fails: str, **kwargs: Any) -> None:
    attempt = note("shaky", sender, number=number)
    if fails == "python" or (fails == "once" and attempt == 1):
        raise ConnectionError("not here, not now")


@receiver(shaky)
def steady_too(sender: Any, number: int, **kwargs: Any) -> None:
    note("steady_too", sender, number=number)


@receiver(one_sided, retry=SOON, dispatch_uid="matrix.only_in_python")
def in_vain(sender: Any, **kwargs: Any) -> None:
    raise ConnectionError("never")


@receiver(counted)
def counts(sender: Any, number: int, **kwargs: Any) -> None:
    note("counts", sender, number=number)
