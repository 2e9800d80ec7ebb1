"""What is paused, and how much waits until it is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .dead_letters import DeadLetter, DeadLetterQueue, ScannedPage
from .queues import QueueLook, paused_queue
from .routes import named_queues

if TYPE_CHECKING:
    from celery import Celery

    from async_signals.pauses import Paused


def waiting(app: Celery, look: QueueLook) -> dict[str, int]:
    """How many messages wait for each queue, where any do.

    Raises:
        SignalNotSent: The broker did not answer, or did not want to.
    """
    counts = {queue: look.depth(paused_queue(queue)) for queue in named_queues(app)}
    return {queue: depth["ready"] for queue, depth in counts.items() if depth is not None and depth["ready"]}


def resumable(
    app: Celery, look: QueueLook, queue: str, paused: Paused
) -> Iterator[tuple[ScannedPage, list[tuple[int, DeadLetter]]]]:
    """The messages that wait for a queue and are paused no longer, page by page: each can be sent again.

    Arguments:
        paused: What is still paused.

    Raises:
        NotNative: The core does not speak to the broker.
        SignalNotSent: The broker did not answer, or did not want to.
    """
    for page in DeadLetterQueue(app, paused_queue(queue), look).scan():
        yield page, [found for found in page.letters() if not paused.covers(found[1].signal, found[1].queue)]
