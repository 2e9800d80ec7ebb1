"""Waiting without holding up a green thread's hub."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def off_hub(call: Callable[[], Result]) -> Result:
    """Calls what may block. Under gevent or eventlet a native thread waits, not the hub."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        from gevent import get_hub

        return get_hub().threadpool.apply(call)  # type: ignore[no-any-return]
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        from eventlet import tpool

        return tpool.execute(call)  # type: ignore[no-any-return]
    return call()
