"""What is kept in the project's database: which receivers ran for which message, and what is paused."""

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


class Pause(models.Model):
    """A signal or a queue is paused (``manage.py signals pause``)."""

    class Kind(models.TextChoices):
        """What is paused."""

        SIGNAL = "signal"
        QUEUE = "queue"

    kind: models.CharField[str, str] = models.CharField(max_length=10, choices=Kind.choices)
    name: models.CharField[str, str] = models.CharField(max_length=255)
    #: Why, and who says so.
    reason: models.CharField[str, str] = models.CharField(max_length=255, blank=True)
    by: models.CharField[str, str] = models.CharField(max_length=255, blank=True)
    at: models.DateTimeField[datetime, datetime] = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("kind", "name"), name="async_signals_one_pause"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
