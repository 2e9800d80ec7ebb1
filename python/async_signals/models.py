"""What is kept of receivers that have one effect for each message."""

from __future__ import annotations

from datetime import datetime

from django.db import models


class Effect(models.Model):
    """One receiver has done its work for one message (``connect(…, once=True)``)."""

    #: The task's id.
    message: models.CharField[str, str] = models.CharField(max_length=255)
    #: The receiver's name in messages.
    receiver: models.CharField[str, str] = models.CharField(max_length=255)
    at: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("message", "receiver"), name="async_signals_one_effect"),)

    def __str__(self) -> str:
        return f"{self.receiver} for {self.message}"
