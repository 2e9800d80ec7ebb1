"""For tests: what is sent is captured, asserted, run as a worker would run it, or muted.

>>> from async_signals.signals import request_finished
>>> with capture_signals() as sent:
...     _ = request_finished.send(None, path="/")
>>> _ = sent.assert_sent(request_finished, path="/")
>>> sent.drain()
[]
"""

from __future__ import annotations

from .capture import CapturedSignal, CapturedSignals, capture_signals
from .live import LiveDeadLetter, LiveWorker, live_worker
from .mixins import SignalsTestMixin
from .muting import mute
from .running import DeadLetter, ReceiverRun, ReceiverRuns

__all__ = [
    "CapturedSignal",
    "CapturedSignals",
    "DeadLetter",
    "LiveDeadLetter",
    "LiveWorker",
    "ReceiverRun",
    "ReceiverRuns",
    "SignalsTestMixin",
    "capture_signals",
    "live_worker",
    "mute",
]
