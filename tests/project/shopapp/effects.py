"""What receivers did, told to whoever watches: one JSON line each, to the file that EFFECTS names."""

import json
import os
from typing import Any


def record(receiver: str, sender: Any, **arguments: Any) -> None:
    """Appends one line; a line this short is written in one piece, whoever else writes."""
    line = {
        "receiver": receiver,
        "sender": label(sender),
        "arguments": {name: label(value) for name, value in arguments.items() if name != "signal"},
        "pid": os.getpid(),
    }
    with open(os.environ["EFFECTS"], "a", encoding="utf-8") as effects:
        effects.write(json.dumps(line) + "\n")


def label(value: Any) -> Any:
    """What JSON has a word for, as it is; the rest as text."""
    return value if value is None or isinstance(value, bool | int | float | str | list | tuple | dict) else str(value)
