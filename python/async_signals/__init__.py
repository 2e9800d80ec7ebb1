"""Django signals, fired asynchronously through Celery."""

from async_signals._native import SenderRef

__all__ = ["SenderRef"]
