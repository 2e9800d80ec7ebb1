"""How Python values cross the wire: encoded, decoded and resolved."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import json
import math
import pickle
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import django
import kombu.utils.json as kombu_json
import pytest
from django.apps import AppConfig, apps
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from async_signals import SenderRef
from async_signals._native import (
    MalformedMessage,
    Reference,
    decode_body,
    encode_body,
    encode_sender,
    resolve,
    resolve_call,
    sender_label,
)
from async_signals.references import (
    Lookup,
    MissingRow,
    SkipReceivers,
    UnresolvableReference,
    register_with_kombu,
)

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
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils.functional import SimpleLazyObject  # noqa: E402
from django.utils.safestring import mark_safe  # noqa: E402
from django.utils.translation import gettext_lazy  # noqa: E402

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


class AbstractItem(models.Model):
    class Meta:
        abstract = True
        app_label = "values"


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # noqa: PIE796 - an alias is what is tested


class Size(str, enum.Enum):
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


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database of this module's own, beside whatever the settings have."""
    configured = connections.configure_settings(
        {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
            DATABASE: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        }
    )
    connections.databases[DATABASE] = configured[DATABASE]
    with connections[DATABASE].schema_editor() as editor:
        for model in (Item, Ticket, Seat):
            editor.create_model(model)
    yield DATABASE
    connections[DATABASE].close()
    del connections[DATABASE]
    del connections.databases[DATABASE]


@pytest.fixture
def registered() -> Iterator[None]:
    """`Registered` in kombu's registry, as a user puts it there."""
    kombu_json.register_type(Registered, "registered-text", lambda it: {"text": it.text}, lambda it: Registered(**it))
    yield
    del kombu_json._encoders[Registered]
    kombu_json._decoders.pop("registered-text", None)


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


# --- What kombu has a form for -----------------------------------------------

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


@unhurried
@given(kombu_values)
def test_what_kombu_can_send_arrives_the_same_from_us(value: Any) -> None:
    assert same(decoded(value), kombu_json.loads(kombu_json.dumps(value)))


@unhurried
@given(kombu_values)
def test_what_kombu_sent_is_decoded_as_kombu_does(value: Any) -> None:
    message = kombu_json.dumps([[], {"value": value}, {}]).encode()
    assert same(list(decode_body(message)), kombu_json.loads(message))


@unhurried
@given(kombu_values)
def test_markers_that_no_decoder_has_seen_resolve_too(value: Any) -> None:
    raw = json.loads(body(value))[1]
    assert same(resolve(raw, Lookup())["value"], decoded(value))


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (5, b"5"),
        (10**30, str(10**30).encode()),
        (-(2**63), str(-(2**63)).encode()),
        (1e16, b"1e+16"),
        ('é\n"\\\x00😀', '"é\\n\\"\\\\\\u0000😀"'.encode()),
        (b"\xff\x00", b'{"__type__":"base64","__value__":"/wA="}'),
        (b"text", b'{"__type__":"bytes","__value__":"text"}'),
        (Decimal("1.10"), b'{"__type__":"decimal","__value__":"1.10"}'),
        (dt.date(2020, 2, 29), b'{"__type__":"date","__value__":"2020-02-29"}'),
        (
            uuid.UUID(int=5),
            b'{"__type__":"uuid","__value__":{"hex":"00000000000000000000000000000005"}}',
        ),
        ({1: 2}, b'{"__type__":"async_signals","__value__":["dict",[[1,2]]]}'),
        ((1,), b'{"__type__":"async_signals","__value__":["tuple",[1]]}'),
        ({"b", "a"}, b'{"__type__":"async_signals","__value__":["set",["a","b"]]}'),
        (Color.RED, f'{{"__type__":"async_signals","__value__":["enum","{__name__}.Color","RED"]}}'.encode()),
        (
            dt.timedelta(days=-1, microseconds=5),
            b'{"__type__":"async_signals","__value__":["timedelta",-1,0,5]}',
        ),
    ],
)
def test_bytes_on_the_wire(value: Any, sent: bytes) -> None:
    assert body(value) == (
        b'[["shop.order_placed",null],{"value":'
        + sent
        + b'},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    )


def test_subclasses_of_builtin_types_go_as_their_base() -> None:
    class Text(str):
        __slots__ = ()

    class Number(int):
        def __repr__(self) -> str:
            return "not a number"

    class Fraction(float):
        def __repr__(self) -> str:
            return "not a number"

    class Listed(list):  # type: ignore[type-arg]
        ...

    class Upper(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            return [(key.upper(), value) for key, value in super().items()]

    assert same(decoded(mark_safe("<b>")), "<b>")
    assert same(decoded(Text("t")), "t")
    assert same(decoded(Number(5)), 5)
    assert same(decoded(Number(10**40)), 10**40)
    assert same(decoded(Fraction(0.5)), 0.5)
    assert same(decoded(Listed([1])), [1])
    assert same(decoded(Upper(a=1)), {"A": 1})
    assert same(decoded(OrderedDict(a=1)), {"a": 1})
    assert same(decoded(defaultdict(int, {Text("a"): 1})), {"a": 1})
    assert same(received(Pair(1, 2)), (1, 2))
    assert same(received(namedtuple("Local", "x")(1)), (1,))  # noqa: PYI024 - the old kind too


def test_subclasses_of_kombus_types_go_as_kombu_sends_them() -> None:
    class Moment(dt.datetime):
        def isoformat(self, *args: Any) -> str:  # type: ignore[override]
            return "today"

    class Price(Decimal): ...

    class Id(uuid.UUID): ...

    for value in (Moment(2020, 1, 2), Price("1.5"), Id(int=1)):
        assert same(decoded(value), kombu_json.loads(kombu_json.dumps(value)))
    assert same(decoded(bytearray(b"\xff")), b"\xff")
    assert same(decoded(memoryview(b"view")[::2]), b"ve")


def test_lazy_strings_go_as_text() -> None:
    assert same(decoded(gettext_lazy("Yes")), "Yes")


def test_objects_that_reduce_themselves_go_as_kombu_sends_them() -> None:
    assert same(decoded(Reduced()), kombu_json.loads(kombu_json.dumps(Reduced())))


# --- What only we have a form for ----------------------------------------------

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


@unhurried
@given(own_values)
def test_a_receiver_gets_what_was_sent(value: Any) -> None:
    assert same(received(value), value)


@unhurried
@given(own_values)
def test_without_kombu_the_same_is_decoded(value: Any) -> None:
    message = body(value)
    assert list(decode_body(message)) == kombu_json.loads(message)


@unhurried
@given(own_values)
def test_stand_ins_that_no_decoder_has_seen_resolve_too(value: Any) -> None:
    raw = json.loads(body(value))[1]["value"]
    assert same(resolve(raw, Lookup()), value)


@unhurried
@given(own_values)
def test_stand_ins_go_on_as_they_came(value: Any) -> None:
    message = body(value)
    kwargs = kombu_json.loads(message)[1]
    assert encode_body("shop.order_placed", None, kwargs) == message
    assert json.loads(kombu_json.dumps(kwargs)) == json.loads(message)[1]
    assert pickle.loads(pickle.dumps(kwargs)) == kwargs


def test_resolving_leaves_the_decoded_message_as_it_is() -> None:
    message = decoded({"plain": [1], "set": {1}})
    resolved = resolve(message, Lookup())
    assert resolved["set"] == {1}
    assert isinstance(message["set"], Reference)
    assert resolved["plain"] is message["plain"]


def test_dataclasses_are_rebuilt_without_their_init() -> None:
    point = Point(1, 2)
    object.__setattr__(point, "x", "never run again")
    assert same(received(point), point)


def test_a_dataclass_field_with_a_default_need_not_be_sent() -> None:
    name = f"{__name__}.Line"
    assert resolve(Reference(["dataclass", name, {"sku": "a"}]), Lookup()) == Line("a")


def test_registered_types_are_the_users_to_decode(registered: None) -> None:
    assert received([Registered("a")]) == [Registered("a")]
    # A worker that does not know the type still has the message.
    del kombu_json._decoders["registered-text"]
    arrived = decoded(Registered("a"))
    with pytest.raises(UnresolvableReference, match="registered-text"):
        resolve(arrived, Lookup())


def test_a_registration_without_a_marker_only_transforms() -> None:
    kombu_json.register_type(Registered, None, lambda it: {it.text})
    try:
        assert received(Registered("a")) == {"a"}
    finally:
        del kombu_json._encoders[Registered]


# --- Models --------------------------------------------------------------------


def test_model_instances_are_fetched_where_they_arrive(database: str) -> None:
    item = Item.objects.using(database).create(name="pen")
    with CaptureQueriesContext(connections[database]) as queries:
        arrived = decoded({"item": item, "again": [item]})
    assert len(queries) == 0
    assert arrived["item"].kind == "model"
    with CaptureQueriesContext(connections[database]) as queries:
        resolved = resolve(arrived, Lookup())
    assert len(queries) == 1
    assert resolved["item"] == item
    assert resolved["item"] is resolved["again"][0]
    assert resolved["item"]._state.db == database


def test_any_primary_key_crosses(database: str) -> None:
    ticket = Ticket.objects.using(database).create()
    seat = Seat.objects.using(database).create(row="A", number=5)
    assert received([ticket, seat]) == [ticket, seat]


def test_deferred_and_lazy_instances_need_no_query(database: str) -> None:
    item = Item.objects.using(database).create(name="pen")
    deferred = Item.objects.using(database).only("pk").get(pk=item.pk)
    lazy = SimpleLazyObject(lambda: item)
    with CaptureQueriesContext(connections[database]) as queries:
        references = [decoded(deferred), decoded(lazy)]
    assert len(queries) == 0
    assert references[0] == references[1] == decoded(item)


def test_an_instance_that_is_not_saved_is_refused(database: str) -> None:
    for instance in (Item(), Item(pk=5), Seat(row="A")):
        with pytest.raises(ValueError, match=r"value: values\.\w+ instance is not in the database.*save it first"):
            body(instance)
    item = Item.objects.using(database).create(name="pen")
    item.delete()
    with pytest.raises(ValueError, match="save it first"):
        body(item)


def test_on_missing_says_what_a_row_that_is_gone_means(database: str) -> None:
    item = Item.objects.using(database).create(name="pen")
    pk = item.pk
    arrived = decoded({"order": [item]})
    item.delete()
    with pytest.raises(MissingRow) as raised:
        resolve(arrived, Lookup())
    assert not isinstance(raised.value, SkipReceivers)
    assert (raised.value.label, raised.value.pk, raised.value.using) == ("values.Item", pk, database)
    assert str(raised.value).startswith("order[0]: there is no values.Item")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(SkipReceivers):
        resolve(arrived, Lookup("skip"))
    assert resolve(arrived, Lookup("none")) == {"order": [None]}


def test_a_row_that_cannot_be_looked_up_here_is_said_clearly(database: str) -> None:
    for value, reason in [
        (["model", "values.Nothing", 1, database], "no app"),
        (["model", "elsewhere.Item", 1, database], "no app"),
        (["model", "garbage", 1, database], "no app"),
        (["model", "values.Item", 1, "no_such_alias"], "DATABASES"),
        (["model", "values.Item", "x" * 1000, database], "primary key"),
        (["model", "values.Ticket", "not a UUID", database], "primary key"),
    ]:
        with pytest.raises(UnresolvableReference, match=rf"item: cannot resolve model .*{reason}") as raised:
            resolve({"item": Reference(value)}, Lookup())
        assert len(str(raised.value)) < 400


# --- What is refused at send -----------------------------------------------------


class Broken:
    def __json__(self) -> Any:
        raise KeyError("broken")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class Turning:
    def __json__(self) -> Any:
        return self


@dataclasses.dataclass
class Both(dict):  # type: ignore[type-arg]
    field: int = 1


def local_enum() -> Any:
    class Local(enum.Enum):
        A = 1

    return Local.A


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"order": Order([Line("a"), Line("b"), Line("c", Unknown())])},
            TypeError,
            r"order\.lines\[2\]\.price: Unknown cannot be sent through Celery; send its id or a plain value",
        ),
        ({"order": {"total price": [Unknown()]}}, TypeError, r'order\["total price"\]\[0\]: Unknown'),
        ({"order": {1: Unknown()}}, TypeError, r"order\[…\]: Unknown"),
        ({"order": {Unknown(): 1}}, TypeError, r"order \(a key\): Unknown"),
        ({"tags": {Unknown()}}, TypeError, r"tags\{…\}: Unknown"),
        ({"kind": Unknown}, TypeError, r"kind: the class Unknown cannot be sent as an argument"),
        ({"items": (i for i in [])}, TypeError, "items: generator cannot be sent through Celery; send a list"),
        ({"keys": {}.keys()}, TypeError, "keys: dict_keys .*a list"),
        ({"items": Item.objects.all()}, TypeError, "items: QuerySet .*a list of ids"),
        ({"callback": len}, TypeError, "callback: builtin_function_or_method .*its name"),
        ({"number": 1j}, TypeError, "number: complex"),
        ({"x": Broken()}, TypeError, "x: cannot be sent: KeyError: 'broken'"),
        ({"x": Both()}, TypeError, "x: Both is a dataclass and a builtin type"),
        ({"x": local_enum()}, TypeError, "x: .*Local cannot be sent, because its class is defined inside a function"),
        ({"x": {"__type__": 1, "__value__": 2}}, TypeError, "x: a dictionary with just the keys"),
        ({"__type__": 1, "__value__": 2}, TypeError, "a dictionary with just the keys"),
        ({"total": math.nan}, ValueError, "total: NaN"),
        ({"order": {"totals": [1, math.inf]}}, ValueError, r"order\.totals\[1\]: NaN and the infinities"),
        ({"x": nested(65)}, ValueError, r"x\[0\]\[0\].*…: nests deeper than 64 levels"),
        ({"x": endless()}, ValueError, "x.*nests deeper than 64 levels, or contains itself"),
        ({"x": Turning()}, ValueError, "x: turns into other values without end"),
        ({"x": ["a" * 2_000_000]}, ValueError, r"x\[0\]: .*larger than 1048576 bytes.*max_message_size"),
        ({"x": [None] * 1_000_001}, ValueError, "x.*: the message"),
        ({"x": "\ud800"}, ValueError, "x: the text holds half of a surrogate pair"),
        ({"x": {"\ud800": 1}}, ValueError, r"x \(a key\): the text holds half of a surrogate pair"),
    ],
)
def test_an_argument_that_cannot_be_sent_is_named(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        encode_body("shop.order_placed", None, kwargs)
    assert len(str(raised.value)) < 500


def test_a_failing_value_is_the_cause_of_the_error() -> None:
    with pytest.raises(TypeError) as raised:
        body(Broken())
    assert isinstance(raised.value.__cause__, KeyError)


def test_an_interrupt_is_no_error_of_the_value() -> None:
    class Interrupted:
        def __json__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        body(Interrupted())


def test_64_levels_cross_both_ways() -> None:
    value = nested(64)
    assert decoded(value) == value
    assert decode_body(body(value))[1]["value"] == value
    marked: Any = 1
    for _ in range(64):
        marked = {1: marked}
    assert received(marked) == marked
    assert resolve(decode_body(body(marked))[1], Lookup()) == {"value": marked}
    with pytest.raises(ValueError, match="64 levels"):
        body({1: marked})


def test_the_size_limit_is_the_callers() -> None:
    size = len(body("abc"))
    assert body("abc", max_bytes=size)
    with pytest.raises(ValueError, match=f"larger than {size - 1} bytes"):
        body("abc", max_bytes=size - 1)


def test_a_dictionary_that_changes_while_it_is_sent_is_an_error() -> None:
    mutable: dict[str, Any] = {}

    class Meddler:
        def __json__(self) -> Any:
            mutable["more"] = 1
            return None

    mutable["meddler"] = Meddler()
    with pytest.raises(TypeError, match="changed while it was being sent"):
        body(mutable)


def test_classes_of_the_started_script_are_refused() -> None:
    script = (
        "import enum\n"
        "from async_signals._native import encode_body\n"
        "class Color(enum.Enum):\n    RED = 1\n"
        "try:\n    encode_body('s', None, {'color': Color.RED})\n"
        "except TypeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "color: Color cannot be sent, because its class is defined in the script" in done.stdout


# --- Senders -----------------------------------------------------------------------


@pytest.mark.parametrize("sender", [None, True, 5, "text", Color.RED, Unknown, Item, Order.Nested, int])
def test_a_sender_that_is_known_arrives_as_itself(sender: Any) -> None:
    args, kwargs, _ = kombu_json.loads(encode_body("s", sender, {}))
    resolved, _ = resolve_call(args[1], kwargs, Lookup())
    assert resolved is sender or resolved == sender
    assert sender_label(resolved) == sender_label(sender)
    assert sender_label(args[1]) == sender_label(sender)


def test_a_model_instance_arrives_as_the_same_object_everywhere(database: str) -> None:
    item = Item.objects.using(database).create(name="pen")
    args, kwargs, _ = kombu_json.loads(encode_body("s", item, {"item": item}))
    sender, kwargs = resolve_call(args[1], kwargs, Lookup())
    assert sender == item
    assert sender is kwargs["item"]
    assert sender_label(sender) == sender_label(item)


def test_labels_are_equal_exactly_if_senders_are_on_the_wire() -> None:
    senders = [True, 1, "1", "True", Color.RED, Color.GREEN, Size.SMALL, "s", Unknown, Item, "values.Item", 0, False]
    labels = [sender_label(sender) for sender in senders]
    assert None not in labels
    assert len(set(labels)) == len(senders)
    assert sender_label(str(b"ab", "ascii")) == sender_label("ab")
    assert sender_label(Color.CRIMSON) == sender_label(Color.RED)
    assert encode_sender(AbstractItem) != encode_sender(Item)
    for nameless in (None, Unknown(), 1.5, [], Item()):
        assert sender_label(nameless) is None


def test_a_sender_that_is_not_known_here_stays_inert_and_matches(database: str) -> None:
    gone = Item.objects.using(database).create(name="pen")
    label = sender_label(gone)
    item_value = decoded(gone).value
    gone.delete()
    for value, name, lookup in [
        (["class", "nowhere.to.be.Found"], "nowhere.to.be.Found", Lookup()),
        (["class", f"{__name__}.DATABASE"], f"{__name__}.DATABASE", Lookup()),
        (["model_class", "elsewhere.Model"], "elsewhere.Model", Lookup()),
        (["model", "elsewhere.Model", 5, None], "elsewhere.Model", Lookup()),
        (["enum", "nowhere.Color", "RED"], "nowhere.Color.RED", Lookup()),
        (item_value, "values.Item", Lookup("none")),
    ]:
        sender, _ = resolve_call(Reference(value), {}, lookup)
        assert type(sender) is SenderRef
        assert sender.label == name
        assert sender == Reference(value)
        assert hash(sender) == hash(Reference(value))
        assert sender_label(sender) == sender_label(Reference(value)) is not None
        assert pickle.loads(pickle.dumps(sender)) == sender
        assert json.loads(encode_sender(sender))["__value__"] == value
    assert sender_label(sender) == label
    with pytest.raises(MissingRow, match="sender: there is no"):
        resolve_call(Reference(item_value), {}, Lookup())


@pytest.mark.parametrize("sender", [1.5, object(), [], {}, (), Unknown(), Line("a")])
def test_what_cannot_be_a_sender_is_refused(sender: Any) -> None:
    with pytest.raises(TypeError, match=r"sender: \w+ cannot be a sender across processes; send None, a class"):
        encode_body("s", sender, {})


def test_an_unsaved_sender_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sender: values\.Item instance is not in the database"):
        encode_body("s", Item(), {})


# --- Stand-ins -----------------------------------------------------------------------

garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
kinds = st.sampled_from(
    [
        "model",
        "set",
        "frozenset",
        "tuple",
        "dict",
        "enum",
        "dataclass",
        "timedelta",
        "class",
        "model_class",
        "registered",
        "newer",
    ]
)


@unhurried
@given(garbage | st.tuples(kinds, st.lists(garbage, max_size=4)).map(lambda it: [it[0], *it[1]]))
def test_a_stand_in_takes_anything_and_resolves_or_says_that_it_cannot(value: Any) -> None:
    reference = kombu_json._decoders["async_signals"](value)
    assert repr(reference).startswith("<Reference")
    assert len(repr(reference)) < 250
    hash(reference)
    assert repr(pickle.loads(pickle.dumps(reference))) == repr(reference)
    with contextlib.suppress(UnresolvableReference, MissingRow):
        resolve(reference, Lookup())


def test_what_a_stand_in_shows() -> None:
    assert repr(Reference(["model", "shop.Order", 5, "default"])) == "<Reference model shop.Order pk=5>"
    assert repr(Reference(["set", ["secret"]])) == "<Reference set>"
    assert repr(Reference(["enum", "shop.Color", "RED"])) == "<Reference enum shop.Color.RED>"
    assert repr(SenderRef(["class", "shop.Order"])) == "<SenderRef class shop.Order>"
    assert repr(Reference(None)) == "<Reference>"
    assert Reference(["newer", 1]).kind == "newer"
    assert Reference({"a": 1}).kind is None
    assert Reference(["set", [1]]).value == ["set", [1]]
    with pytest.raises(AttributeError):
        Reference(None).value = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        SenderRef(["set", []])


def test_stand_ins_are_equal_if_they_are_on_the_wire() -> None:
    assert Reference(["class", "a.B"]) == Reference(["class", "a.B"])
    assert Reference(["class", "a.B"]) != Reference(["class", "a.C"])
    assert Reference(["class", "a.B"]) != ["class", "a.B"]
    assert len({Reference(["class", "a.B"]), Reference(["class", "a.B"])}) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["enum", "nowhere.Color", "RED"], "enum 'nowhere.Color': no module that is imported here"),
        (["enum", f"{__name__}.Color", "BLUE"], "has no member BLUE"),
        (["enum", f"{__name__}.Color", 1], "not of the shape"),
        (["enum", f"{__name__}.Line", "RED"], "no enum here"),
        (["enum", f"{__name__}.f.<locals>.Color", "RED"], "no module"),
        (["dataclass", "nowhere.Line", {}], "dataclass 'nowhere.Line'"),
        (["dataclass", f"{__name__}.Color", {}], "no dataclass here"),
        (["dataclass", f"{__name__}.Line", {}], "field sku was not sent"),
        (["dataclass", f"{__name__}.Line", {"sku": "a", "color": 1}], "fields were sent"),
        (["dataclass", f"{__name__}.Line", {"sku": "a", "__class__": 1}], "fields were sent"),
        (["newer", 1], "unknown|does not know the kind"),
        (["set", [["unhashable"]]], "not of the shape"),
        (["timedelta", "a", "b", "c"], "not of the shape"),
        (["registered", "async_signals", ["set", []]], "nobody has registered"),
        ("garbage", "no marker"),
    ],
)
def test_what_cannot_be_resolved_is_named(value: Any, message: str) -> None:
    with pytest.raises(UnresolvableReference, match=message) as raised:
        resolve({"order": [{"x": Reference(value)}]}, Lookup())
    assert raised.value.argument == "order[0].x"
    assert str(raised.value).startswith("order[0].x: cannot resolve")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_nothing_is_imported_because_a_message_names_it() -> None:
    script = (
        "import sys\n"
        "from async_signals._native import Reference, resolve_call\n"
        "from async_signals.references import Lookup\n"
        "for name in ('wave.Wave_read', 'xml.dom.minidom.Node'):\n"
        "    sender, _ = resolve_call(Reference(['class', name]), {}, Lookup())\n"
        "    assert type(sender).__name__ == 'SenderRef', sender\n"
        "assert not {'wave', 'xml.dom.minidom'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_unknown_markers_of_other_libraries_are_said_clearly() -> None:
    raw = {"x": {"__type__": "somebody-elses", "__value__": 1}}
    with pytest.raises(UnresolvableReference, match="x: cannot resolve registered 'somebody-elses'"):
        resolve(raw, Lookup())


def test_what_nests_too_deep_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="too deep"):
        resolve(nested(2000), Lookup())


# --- Malformed messages ---------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"garbage",
        b"\xff",
        b"null",
        b"[[], {}]",
        b"[[], {}, {}, {}]",
        b"[{}, {}, {}]",
        b"[[], [], {}]",
        b"[[], {}, {}] trailing",
        b"[[NaN], {}, {}]",
        b'[["\\ud800"], {}, {}]',
        b"[" * 100_000,
        b"[[" + b"1" * 5000 + b"], {}, {}]",
        b'[[{"__type__": "unknown", "__value__": 1}], {}, {}]',
        b'[[{"__type__": [], "__value__": 1}], {}, {}]',
        b'[[{"__type__": "datetime", "__value__": "never"}], {}, {}]',
        b'[[{"__type__": "uuid", "__value__": {"is_safe": 1}}], {}, {}]',
    ],
)
def test_a_malformed_message_is_one_error(message: bytes) -> None:
    with pytest.raises(MalformedMessage, match=r"^malformed message: ") as raised:
        decode_body(message)
    assert isinstance(raised.value, ValueError)
    assert len(str(raised.value)) < 300


@unhurried
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_decoded_or_malformed(message: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_body(message)
