"""A signal that senders have and workers lack, as when the workers run an older release."""

from async_signals import AsyncSignal
from checker.signals import QUEUE

newer = AsyncSignal(queue=QUEUE)
