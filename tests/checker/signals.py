"""The signals that the checker sends."""

from async_signals import AsyncSignal

QUEUE = "checked"

#: Two receivers that do nothing but write it down.
heard = AsyncSignal(queue=QUEUE)
#: Its first receiver writes it down; the second then waits at the gate, if there is one.
gated = AsyncSignal(queue=QUEUE)
#: Takes as many seconds as it is sent with.
slow = AsyncSignal(queue=QUEUE)
#: Kills its process, each time.
deadly = AsyncSignal(queue=QUEUE)
#: Of three receivers the second fails.
failing = AsyncSignal(queue=QUEUE)
#: All receivers are coroutine functions.
awaited = AsyncSignal(queue=QUEUE)
#: Tells what the receiver is told about the message.
told = AsyncSignal(queue=QUEUE)
#: Sends `heard` in turn.
chained = AsyncSignal(queue=QUEUE)
#: Nobody listens.
unheard = AsyncSignal(queue=QUEUE)
#: In a queue that no worker of the tests reads.
elsewhere = AsyncSignal(queue="elsewhere")
#: Received by `retried.py`, which a test installs.
retried = AsyncSignal(queue=QUEUE)
#: Received by `once.py`, which a test installs.
single = AsyncSignal(queue=QUEUE)
