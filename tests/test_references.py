"""What a worker reads: references that take anything and resolve or say that they cannot, and malformed messages."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from typing import Any

import kombu.utils.json as kombu_json
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_signals import SenderRef
from async_signals._native import MalformedMessage, Reference, decode_body, resolve
from async_signals.references import Lookup, MissingRow, UnresolvableReference
from values import nested, unhurried

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
        (["enum", "values.Color", "BLUE"], "has no member BLUE"),
        (["enum", "values.Color", 1], "not of the shape"),
        (["enum", "values.Line", "RED"], "no enum here"),
        (["enum", "values.f.<locals>.Color", "RED"], "no module"),
        (["dataclass", "nowhere.Line", {}], "dataclass 'nowhere.Line'"),
        (["dataclass", "values.Color", {}], "no dataclass here"),
        (["dataclass", "values.Line", {}], "field sku was not sent"),
        (["dataclass", "values.Line", {"sku": "a", "color": 1}], "fields were sent"),
        (["dataclass", "values.Line", {"sku": "a", "__class__": 1}], "fields were sent"),
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
