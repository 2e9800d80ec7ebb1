"""Values that cannot cross the wire: refused where they are sent, by a path that leads to them."""

from __future__ import annotations

import dataclasses
import enum
import math
import subprocess
import sys
from collections import namedtuple
from typing import Any

import pytest
from django.http import QueryDict

from async_signals._native import decode_body, encode_body, resolve
from async_signals.references import Lookup
from values import Item, Line, Order, Unknown, body, decoded, nested, received


class Broken:
    def __json__(self) -> Any:
        raise KeyError("broken")


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
        (
            {"rows": [namedtuple("Row", "x")(1)]},  # noqa: PYI024 - as `values_list(named=True)` makes them
            TypeError,
            r"rows\[0\]: .*Row cannot be sent, because its class is not what stands under its name",
        ),
        ({"query": QueryDict("a=1&a=2")}, TypeError, "query: QueryDict has several values for a key"),
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
