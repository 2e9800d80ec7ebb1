"""What can be asked of a project: its signals and receivers, its queues, its dead letters, its workers.

``manage.py signals`` and ``async-signals dead`` print the answers; nothing here prints. A question takes nothing out of
a queue that a worker reads, has a deadline, and gives an answer of bounded size, or one piece by piece.
"""

from __future__ import annotations

from .dead_letters import DeadLetter, DeadLetterQueue, Filter
from .queues import QueueInfo, QueueLook
from .signals import ReceiverInfo, SignalInfo
from .workers import WorkerInfo

__all__ = [
    "DeadLetter",
    "DeadLetterQueue",
    "Filter",
    "QueueInfo",
    "QueueLook",
    "ReceiverInfo",
    "SignalInfo",
    "WorkerInfo",
]
