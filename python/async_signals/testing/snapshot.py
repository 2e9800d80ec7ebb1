"""A value as it is now, whatever becomes of it later."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import uuid
from typing import Any

_IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, type, enum.Enum),
    *(datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID),
)


def snapshot(value: Any) -> Any:
    """The value, with copies in the place of all in it that could change.

    A model instance becomes another one of the same row with the same fields; what it is related to is not copied.
    """
    if isinstance(value, _IMMUTABLE):
        return value
    kind = type(value)
    if kind is dict:
        return {key: snapshot(each) for key, each in value.items()}
    if kind is list or kind is tuple:
        return kind(map(snapshot, value))
    # Loading models where nobody needs them would load Django's signals with them.
    from django.db.models import Model

    try:
        if not isinstance(value, Model):
            return copy.deepcopy(value)
        copied = copy.copy(value)
        # What was loaded alone: asking for another field would ask the database.
        for field in value._meta.concrete_fields:
            if field.attname in value.__dict__:
                copied.__dict__[field.attname] = snapshot(value.__dict__[field.attname])
        return copied
    except Exception:
        return value  # one that cannot be copied is shown as it is
