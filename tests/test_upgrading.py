"""What docs/upgrading.md says of older versions: their names still work, and warn of what has taken their places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import async_signals

PAGE = Path(__file__).parents[1] / "docs" / "upgrading.md"
RENAMED = re.findall(r"^\| `async_signals\.(\w+)` \| `async_signals\.(\w+)` \|$", PAGE.read_text(), re.MULTILINE)


def test_the_page_has_every_name() -> None:
    assert dict(RENAMED) == async_signals._RENAMED


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_an_old_name_works_and_warns(old: str, new: str) -> None:
    with pytest.warns(async_signals.AsyncSignalsDeprecationWarning, match=new) as caught:
        found = getattr(async_signals, old)
    assert found is getattr(async_signals, new)
    assert caught[0].filename == __file__


def test_there_are_no_others() -> None:
    assert not hasattr(async_signals, "Nothing")
