"""How Python values cross the wire: what a receiver has is what was sent."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import time
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

import kombu.utils.json as kombu_json
import pytest
from django.db import connections, router
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject, lazy
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given

from async_signals._native import Reference, decode_body, encode_body, resolve, sender_label
from async_signals.references import Lookup, MissingRow, SkipReceivers, UnresolvableReference
from values import (
    Color,
    Coupon,
    Hashid,
    Item,
    Line,
    OneWay,
    Pair,
    Point,
    Price,
    Reduced,
    Registered,
    Seat,
    Ticket,
    Voucher,
    body,
    decoded,
    kombu_values,
    own_values,
    received,
    same,
    unhurried,
)


@pytest.fixture
def registered() -> Iterator[None]:
    """`Registered` in kombu's registry, as a user puts it there."""
    kombu_json.register_type(Registered, "registered-text", lambda it: {"text": it.text}, lambda it: Registered(**it))
    yield
    del kombu_json._encoders[Registered]
    kombu_json._decoders.pop("registered-text", None)


# --- What kombu has a form for -----------------------------------------------


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
        (Color.RED, b'{"__type__":"async_signals","__value__":["enum","values.Color","RED"]}'),
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

    assert same(decoded(Text("t")), "t")
    assert same(decoded(Number(5)), 5)
    assert same(decoded(Number(10**40)), 10**40)
    assert same(decoded(Fraction(0.5)), 0.5)
    assert same(decoded(Listed([1])), [1])
    assert same(decoded(Upper(a=1)), {"A": 1})
    assert same(decoded(OrderedDict(a=1)), {"a": 1})
    assert same(decoded(defaultdict(int, {Text("a"): 1})), {"a": 1})
    assert same(received(time.gmtime(0)), tuple(time.gmtime(0)))


def test_a_named_tuple_keeps_its_names() -> None:
    assert same(received({"pair": [Pair(1, 2)]}), {"pair": [Pair(1, 2)]})
    assert same(received(Price({Decimal(1)})), Price({Decimal(1)}))
    assert isinstance(decoded(Pair(1, 2)), Reference), "inert until the receivers run"


def test_a_named_tuple_of_an_older_sender_gets_the_defaults() -> None:
    assert resolve(Reference(["namedtuple", "values.Price", [5]]), Lookup()) == Price(5, "EUR")


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("values.Price", [], "it has other fields here"),
        ("values.Price", [1, "EUR", 3], "it has other fields here"),
        ("values.Gone", [1], "no module that is imported here has it"),
        ("values.Item", [1], "it is no named tuple here"),
        ("builtins.tuple", [[1]], "it is no named tuple here"),
    ],
)
def test_a_named_tuple_that_is_another_here_is_said_clearly(name: str, items: list[Any], message: str) -> None:
    with pytest.raises(UnresolvableReference, match=message):
        resolve(Reference(["namedtuple", name, items]), Lookup())


def test_safe_text_stays_safe() -> None:
    late = lazy(lambda: format_html("<i>{}</i>", "&"), SafeString)()
    assert same(received({"body": mark_safe("<b>")}), {"body": mark_safe("<b>")})
    assert same(received(late), mark_safe("<i>&amp;</i>"))
    assert same(received({mark_safe("key"): 1}), {"key": 1})
    # Who sends is told by what it says.
    assert sender_label(mark_safe("web")) == sender_label("web")


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
    name = "values.Line"
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


def test_a_primary_key_that_is_an_object_crosses_in_its_fields_words(database: str) -> None:
    voucher = Voucher.objects.using(database).create(id=Hashid(5))
    coupon = Coupon.objects.using(database).create(voucher=voucher)
    assert isinstance(voucher.pk, Hashid)
    assert decoded(voucher).value == ["model", "values.Voucher", "hash0005", database]
    assert received([voucher, coupon]) == [voucher, coupon]
    one_way = OneWay.objects.using(database).create(id=Hashid(6))
    with pytest.raises(TypeError, match=r"value\.pk: Hashid cannot be sent through Celery"):
        body(one_way)


def test_an_instance_of_a_replica_is_read_where_it_is_written(database: str) -> None:
    class Writer:
        def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
            return database if hints["instance"]._state.db == "replica" else None

    item = Item.objects.using(database).create(name="pen")
    item._state.db = "replica"
    with mock.patch.object(router, "routers", [Writer()]):
        assert decoded(item).value == ["model", "values.Item", item.pk, database]
    item._state.db = database
    with mock.patch.object(router, "routers", [Writer()]):
        assert decoded(item).value == ["model", "values.Item", item.pk, database]


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
