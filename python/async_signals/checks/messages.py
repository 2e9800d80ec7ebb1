"""How checks say what they have found: they never raise, and list no more than anybody reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from async_signals.inspection.signals import some_of

Check = Callable[..., Iterable[CheckMessage]]

#: How many signals a message lists.
_MOST_LISTED = 5


def never_raises(check: Check) -> Callable[..., list[CheckMessage]]:
    """Makes a check that says of its own faults, too."""

    @functools.wraps(check)
    def guarded(**asked: Any) -> list[CheckMessage]:
        messages: list[CheckMessage] = []
        try:
            messages.extend(check(**asked))
        except (Exception, SystemExit) as error:
            # A warning: whatever is wrong with a check, it must not keep anybody from migrating a database.
            text = f"{check.__name__} of async_signals failed: {type(error).__name__}: {error}"
            messages.append(CheckWarning(text, id="async_signals.W006"))
        return messages

    return guarded


def listed(signals: list[str]) -> str:
    """Signals in words."""
    return f"signal {some_of(signals, _MOST_LISTED)}"
