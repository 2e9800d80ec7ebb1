"""How senders cross the wire: as themselves where they are known, else as references that match all the same."""

from __future__ import annotations

import json
import pickle
from typing import Any

import kombu.utils.json as kombu_json
import pytest

from async_signals import SenderRef
from async_signals._native import Reference, encode_body, encode_sender, resolve_call, sender_label
from async_signals.references import Lookup, MissingRow
from values import AbstractItem, Color, Item, Line, Order, Size, Unknown, decoded


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
        (["class", "values.DATABASE"], "values.DATABASE", Lookup()),
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
