"""Where stand-ins become values again: what needs Django or kombu to do so.

What JSON has no form for crosses the wire as a `Reference`, which is inert
until the task that runs the receivers resolves it with a `Lookup`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from async_signals._native import Reference

if TYPE_CHECKING:
    from django.db.models import Model

OnMissing = Literal["raise", "skip", "none"]


class UnresolvableReference(LookupError):
    """What was sent by reference is not known in this process.

    A model of an app that is not installed, a class that nothing has imported,
    or a kind that only a newer version knows. The message is well formed, and
    can be delivered again once the worker knows what it names.
    """

    def __init__(self, kind: str, name: str, reason: str, argument: str = "") -> None:
        super().__init__(kind, name, reason, argument)
        self.kind = kind
        self.name = name
        self.reason = reason
        self.argument = argument

    def __str__(self) -> str:
        where = f"{self.argument}: " if self.argument else ""
        return f"{where}cannot resolve {self.kind} {self.name!r}: {self.reason}"


class MissingRow(LookupError):
    """The row that an argument stands for is gone."""

    def __init__(self, label: str, pk: Any, using: str | None, argument: str = "") -> None:
        super().__init__(label, pk, using, argument)
        self.label = label
        self.pk = pk
        self.using = using
        self.argument = argument

    def __str__(self) -> str:
        where = f"{self.argument}: " if self.argument else ""
        database = f" in database {self.using!r}" if self.using else ""
        return f"{where}there is no {self.label} with primary key {_shown(self.pk)}{database}"


class SkipReceivers(MissingRow):
    """A row is gone, and the signal says `on_missing="skip"`: run no receiver."""


class Lookup:
    """How one message's stand-ins for models are looked up."""

    def __init__(self, on_missing: OnMissing = "raise") -> None:
        self.on_missing = on_missing

    def model(self, label: str) -> type[Model] | None:
        """The model of a label, `app.Model`; None if no installed app has it."""
        try:
            from django.apps import apps
        except ImportError:
            return None
        try:
            model: type[Model] = apps.get_model(label)
        except (LookupError, ValueError):
            return None
        return model

    def row(self, model: type[Model], pk: Any, using: str | None) -> Model | None:
        """The row of a model, on the database that it was sent from.

        `on_missing` decides about one that is gone: MissingRow, SkipReceivers
        (which the task takes for success) or None.
        """
        from django.core.exceptions import ValidationError
        from django.utils.connection import ConnectionDoesNotExist

        label = model._meta.label
        rows = model._base_manager.using(using) if using else model._base_manager
        try:
            # A text is what the field itself has made of its key, or is one.
            row: Model = rows.get(pk=model._meta.pk.to_python(pk) if isinstance(pk, str) else pk)
        except model.DoesNotExist as missing:
            if self.on_missing == "none":
                return None
            error = SkipReceivers if self.on_missing == "skip" else MissingRow
            raise error(label, pk, using) from missing
        except ConnectionDoesNotExist as unknown:
            raise UnresolvableReference(
                "model", label, f"DATABASES has no {using!r} here, where the row is"
            ) from unknown
        except (TypeError, ValueError, ValidationError) as unfit:
            raise UnresolvableReference("model", label, f"its primary key is no {_shown(pk)} here") from unfit
        return row


def primary_key_text(instance: Model) -> str | None:
    """An instance's primary key in its field's own words, as Django's serializers write it.

    None where the field does not lead back from them to the same key.
    """
    field = instance._meta.pk
    try:
        text: str = field.value_to_string(instance)
        back = field.get_prep_value(field.to_python(text))
        return text if back == field.get_prep_value(instance.pk) else None
    except Exception:
        return None


def register_with_kombu() -> None:
    """Let every kombu in this process read and write our stand-ins.

    Only `Reference`, a type of our own, is registered: how other tasks are
    serialized stays as it is. The decoder only wraps, so it cannot fail: a
    stock worker loses a message whose decoder raises.
    """
    from kombu.utils.json import register_type

    register_type(Reference, "async_signals", _encode, Reference)


def _encode(reference: Reference) -> Any:
    return reference.value


def _shown(pk: Any) -> str:
    """A key from a message, fit for a log."""
    text = repr(pk)
    return text if len(text) <= 80 else text[:80] + "…"
