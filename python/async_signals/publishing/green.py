"""Waiting under gevent and eventlet: a green thread waits, the hub goes on, and no thread is spent on it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from async_signals.errors import SignalNotSent

if TYPE_CHECKING:
    from async_signals._native import Receipt

#: For how much longer than a message's own deadline to wait for the word that it has passed, in seconds.
_SLACK = 2.0


def hub() -> Literal["gevent", "eventlet"] | None:
    """Which library has made this program's threads green; None: none."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return None


def wait(receipt: Receipt | Any) -> BaseException | None:
    """Waits until a message is settled, at its deadline at the latest; returns what went wrong."""
    outcome: list[BaseException | None] = []
    timeout = receipt.timeout + _SLACK
    (_wait_with_gevent if hub() == "gevent" else _wait_with_eventlet)(receipt, outcome, timeout)
    if outcome:
        return outcome[0]
    return SignalNotSent(f"not settled within {timeout:g} s", "deadline", may_have_arrived=True)


def _wait_with_gevent(receipt: Any, outcome: list[BaseException | None], timeout: float) -> None:
    from gevent import get_hub
    from gevent.event import Event

    settled, watcher = Event(), get_hub().loop.async_()
    watcher.start(settled.set)
    try:

        def settle(error: BaseException | None) -> None:
            # On a thread of the core's: of all that gevent has, it may call this alone.
            outcome.append(error)
            watcher.send()

        receipt.on_settled(settle)
        settled.wait(timeout)
    finally:
        watcher.stop()
        watcher.close()


def _wait_with_eventlet(receipt: Any, outcome: list[BaseException | None], timeout: float) -> None:
    from eventlet.hubs import trampoline
    from eventlet.timeout import Timeout

    reader, writer = os.pipe()

    def settle(error: BaseException | None) -> None:
        outcome.append(error)
        os.close(writer)  # which makes the reader ready; and it is closed nowhere else

    receipt.on_settled(settle)
    try:
        trampoline(reader, read=True, timeout=timeout)
    except Timeout:
        pass
    finally:
        os.close(reader)
