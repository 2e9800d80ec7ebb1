"""Sends many signals from some threads, and tells the outcome of each: hammer.py COUNT THREADS.

Prints `halfway` when half are through, `first failure` when one was not sent, and at the end one line of JSON: for each
number `[how, seconds]`.
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import django

django.setup()

from async_signals import SignalNotSent  # noqa: E402
from shopapp.signals import my_signal  # noqa: E402


def send(number: int) -> tuple[str, float]:
    if number == count // 2:
        print("halfway", flush=True)
    start = time.monotonic()
    try:
        my_signal.send("hammer", number=number)
        how = "sent"
    except SignalNotSent as error:
        how = f"not sent: {error}"
        if not failed.is_set():
            failed.set()
            print("first failure", flush=True)
    return how, time.monotonic() - start


failed = threading.Event()
count, threads = map(int, sys.argv[1:])
with ThreadPoolExecutor(threads) as pool:
    outcomes = list(pool.map(send, range(count)))
print("outcomes: " + json.dumps(outcomes), flush=True)
