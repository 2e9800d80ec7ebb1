"""The signals that come with Async Signals.

``request_started`` and ``request_finished`` are sent for every request when
``"async_signals"`` is in ``INSTALLED_APPS`` and something listens to them.
They are not Django's own: those stay as they are, and run in the web process.
"""

from __future__ import annotations

from .dispatcher import AsyncSignal

#: A request has come in. Sent with what ``async_signals.requests`` allows of it.
request_started = AsyncSignal(
    providing_args=("method", "path", "query_string", "host", "scheme", "remote_addr"),
    name="async_signals.signals.request_started",
)

#: A response has gone out.
request_finished = AsyncSignal(
    providing_args=("method", "path", "query_string", "host", "scheme", "remote_addr"),
    name="async_signals.signals.request_finished",
)
