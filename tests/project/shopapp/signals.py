"""The signals of the shop, defined as the documentation defines them."""

from django.dispatch import Signal

from async_signals import AsyncSignal

my_signal = AsyncSignal()

request_started = AsyncSignal(providing_args=("host", "path"))

routed_signal = AsyncSignal(queue="high_priority")

order_placed = AsyncSignal(providing_args=("order_id",))

# One of Django's own, beside them.
synchronous = Signal()

# Its receiver sends another one, to a queue that no worker reads.
chained = AsyncSignal()
unread = AsyncSignal(queue="unread")

# Returns at once; the broker gets it a little later.
buffered = AsyncSignal(durability="background")

# Its receiver sends in the background, to the same queue.
chained_in_background = AsyncSignal()

# For what goes wrong in a worker.
troubled = AsyncSignal()
poisonous = AsyncSignal()
about_a_row = AsyncSignal()
skipping = AsyncSignal(on_missing="skip")
without_rows = AsyncSignal(on_missing="none")
unheard = AsyncSignal()

# For receivers that are tried again.
tried = AsyncSignal()
tried_by_default = AsyncSignal(retry={"max": 3, "base": 0.1})

# For receivers that have one effect for each message.
kept_once = AsyncSignal(retry={"max": 2, "base": 0.1})

# Its receiver waits for what somebody writes into a pipe.
waiting = AsyncSignal()

# For what a worker does with its processes and threads.
held_up = AsyncSignal()
limited = AsyncSignal()
touching = AsyncSignal()
awaited = AsyncSignal()
ending = AsyncSignal()
endless = AsyncSignal()
