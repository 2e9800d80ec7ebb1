"""Values that cross the wire, of all kinds: what the tests of values send, and how they look at what arrives."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import math
import sys
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import django
import kombu.utils.json as kombu_json
from django.apps import AppConfig, apps
from django.conf import settings
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from async_signals._native import encode_body, resolve
from async_signals.references import Lookup, register_with_kombu

if not settings.configured:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
    )
    django.setup()


def _install_this_module_as_app() -> None:
    """Models need an installed app; this module is one, whatever the settings."""
    app = AppConfig("values", sys.modules[__name__])
    app.apps = apps
    apps.app_configs["values"] = app
    app.import_models()
    apps.clear_cache()


_install_this_module_as_app()

from django.db import connections, models  # noqa: E402

register_with_kombu()

DATABASE = "values"

# The machine may be busy; no example is slow of itself.
unhurried = hypothesis_settings(deadline=None)


class Item(models.Model):
    name = models.CharField(max_length=20)
    price = models.IntegerField(default=0)

    class Meta:
        app_label = "values"


class Ticket(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    class Meta:
        app_label = "values"


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=5)
    number = models.IntegerField()

    class Meta:
        app_label = "values"


class Hashid:
    """A primary key that is an object: equal by its number, shown by a text."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashid) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)

    def __str__(self) -> str:
        return f"hash{self.number:04}"


class HashidField(models.IntegerField):
    """As such fields are written: by the words that Django's documentation asks for."""

    def from_db_value(self, value: Any, *_: Any) -> Any:
        return None if value is None else Hashid(value)

    def to_python(self, value: Any) -> Any:
        return Hashid(int(value.removeprefix("hash"))) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> Any:
        return value.number if isinstance(value, Hashid) else value


class OneWayField(HashidField):
    """Its keys show themselves by a text that it does not read."""

    def to_python(self, value: Any) -> Any:
        return value


class Voucher(models.Model):
    id = HashidField(primary_key=True)

    class Meta:
        app_label = "values"


class Coupon(models.Model):
    voucher = models.OneToOneField(Voucher, models.CASCADE, primary_key=True)

    class Meta:
        app_label = "values"


class OneWay(models.Model):
    id = OneWayField(primary_key=True)

    class Meta:
        app_label = "values"


class AbstractItem(models.Model):
    class Meta:
        abstract = True
        app_label = "values"


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # noqa: PIE796 - an alias is what is tested


class Size(str, enum.Enum):  # noqa: UP042 -- as many projects still write it
    SMALL = "s"


class Level(enum.IntEnum):
    HIGH = 3


class Permission(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass
class Line:
    sku: str
    price: Any = None
    amount: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any

    def __post_init__(self) -> None:
        if self.x == "never run again":
            raise AssertionError("__post_init__ ran")


@dataclasses.dataclass
class Order:
    lines: list[Any]
    note: str = ""

    class Nested(enum.Enum):
        INSIDE = 1


class Pair(NamedTuple):
    left: int
    right: int


class Price(NamedTuple):
    amount: Any
    currency: str = "EUR"


class Unknown:
    """Has no form on the wire."""


class Registered:
    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registered) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]


class Reduced:
    def __json__(self) -> Any:
        return {"reduced": [1, 2]}


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database with the tables of these models, beside whatever the settings have."""
    configured = connections.configure_settings(
        {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
            DATABASE: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        }
    )
    connections.databases[DATABASE] = configured[DATABASE]
    with connections[DATABASE].schema_editor() as editor:
        for model in (Item, Ticket, Seat, Voucher, Coupon, OneWay):
            editor.create_model(model)
    yield DATABASE
    connections[DATABASE].close()
    del connections[DATABASE]
    del connections.databases[DATABASE]


def body(value: Any, **limits: int) -> bytes:
    return encode_body("shop.order_placed", None, {"value": value}, **limits)


def decoded(value: Any) -> Any:
    """The value as a stock worker's task has it."""
    args, kwargs, embed = kombu_json.loads(body(value))
    assert args == ["shop.order_placed", None]
    assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return kwargs["value"]


def received(value: Any, lookup: Lookup | None = None) -> Any:
    """The value as a receiver has it."""
    return resolve(decoded(value), lookup or Lookup())


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if dataclasses.is_dataclass(left):
        return all(same(getattr(left, field.name), getattr(right, field.name)) for field in dataclasses.fields(left))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and left == right
    return left == right


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# Whole minutes: Python itself does not read all the finer offsets that it writes.
timezones = st.timezones() | st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=timezones, allow_imaginary=False)
    | st.uuids()
    | st.binary()
)
kombu_values = st.recursive(
    hashable_scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)

enum_members = st.sampled_from(Color) | st.sampled_from(Size) | st.sampled_from(Level) | st.just(Order.Nested.INSIDE)
flags = st.integers(0, 7).map(Permission)
hashable = st.recursive(
    hashable_scalars | enum_members | flags | st.timedeltas(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Point, inner, inner),
    max_leaves=5,
)
own_values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=4)
        | st.builds(Line, st.text(), inner)
        | st.builds(Order, st.lists(inner, max_size=3), st.text())
    ),
    max_leaves=12,
)
