"""The signals of the shop, defined as the documentation defines them."""

from django.dispatch import Signal

from async_signals import AsyncSignal

my_signal = AsyncSignal()

request_started = AsyncSignal(providing_args=("host", "path"))

routed_signal = AsyncSignal(queue="high_priority")

order_placed = AsyncSignal(providing_args=("order_id",))

# One of Django's own, beside them.
synchronous = Signal()
