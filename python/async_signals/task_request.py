"""A stock worker's view of one message: a module of its own, since only workers load what it is made of."""

from __future__ import annotations

from celery.worker.request import Request


class SignalRequest(Request):
    """A worker's view of one message: says of one that goes back that it was delivered before.

    Brokers say so themselves, but kombu's SQLAlchemy transport forgets it, and
    without it a receiver that kills its worker would be tried for ever.
    """

    def reject(self, requeue: bool = False) -> None:
        """Gives the message back, or drops it."""
        info = self._message.properties.get("delivery_info") if self._message.properties else None
        if requeue and isinstance(info, dict):
            info["redelivered"] = True
        super().reject(requeue)
