"""What the shop tells the rest of the house.

Four of these signals run their receivers in a worker, one runs them here: the two
kinds are sent and received in the same words.
"""

from django.conf import settings
from django.dispatch import Signal

from async_signals import AsyncSignal

#: Synchronous, because the sender needs the answer: receivers return a discount.
basket_priced = Signal()

#: An order is in the database. Goes to Celery's default queue.
order_placed = AsyncSignal(providing_args=("order", "total", "placed_at"))

#: Money has arrived. Goes to its own queue, so that it never waits behind e-mails.
payment_taken = AsyncSignal(providing_args=("order", "amount"), queue=settings.URGENT_QUEUE)

#: Somebody looks at a page. There are many, and none is worth waiting for: sent in the background, to their own queue.
page_viewed = AsyncSignal(providing_args=("path",), queue=settings.RUSH_QUEUE, durability="background")

#: A shelf is nearly empty. Sent by a receiver, from inside the worker.
stock_low = AsyncSignal(providing_args=("product", "left"))
