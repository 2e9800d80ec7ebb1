"""One send that is written down, before and after."""

import time
import uuid
from typing import Any

from async_signals import AsyncSignal, SignalNotSent
from checker.journal import Journal


def send(signal: AsyncSignal, name: str, journal: Journal, /, **named: Any) -> str:
    """Sends a signal under a fresh token, and returns how it went: "ok", "error" or "unknown".

    The token is what the judge follows: it is known before the send and, unlike the task's id, also when the send
    raises. Whoever is killed in between has sent with an unknown outcome.
    """
    token = named.pop("token", None) or uuid.uuid4().hex
    options = named.pop("options", None)
    sender = signal.options(**options) if options else signal
    journal.append(token=token, signal=name, outcome="began", time=time.time())
    start = time.monotonic()
    task_id = error = None
    try:
        task_id = sender.send("checker", token=token, **named).id
        outcome = "ok"
    except SignalNotSent as caught:
        outcome = "unknown" if caught.may_have_arrived else "error"
        error = str(caught)
    seconds = time.monotonic() - start
    journal.append(token=token, signal=name, outcome=outcome, id=task_id, seconds=seconds, error=error)
    return outcome
