"""Sends a signal of the checker many times: sender.py SIGNAL [--count N] [--threads N] [--rate N] [--named JSON].

Without a count it sends until it is told to stop (SIGTERM). Prints `sending` after the first send, `refused` after the
first that failed, and at the end `outcomes: {…}`.
"""

import argparse
import itertools
import json
import os
import signal as signals_of_the_system
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import django

django.setup()

from checker import newer, signals  # noqa: E402
from checker.journal import Journal  # noqa: E402
from checker.sending import send  # noqa: E402

#: How long a sender waits after a send that failed at once, in seconds: an outage shall not fill the journal.
PAUSE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("signal")
    parser.add_argument("--count", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, help="sends a second, of all threads together")
    parser.add_argument("--named", type=json.loads, default={}, help="more arguments of the signal, as JSON")
    chosen = parser.parse_args()

    signal = getattr(signals, chosen.signal, None) or getattr(newer, chosen.signal)
    journal = Journal(Path(os.environ["PROJECT_FOLDER"]) / "sends.jsonl")
    stop = threading.Event()
    signals_of_the_system.signal(signals_of_the_system.SIGTERM, lambda *_: stop.set())
    numbers = itertools.count()
    outcomes: Counter[str] = Counter()
    told = threading.Lock()
    start = time.monotonic()

    def loop(_: int) -> None:
        while not stop.is_set():
            number = next(numbers)
            if chosen.count is not None and number >= chosen.count:
                return
            if chosen.rate and stop.wait(max(0.0, start + number / chosen.rate - time.monotonic())):
                return
            outcome = send(signal, chosen.signal, journal, **chosen.named)
            with told:
                if not outcomes:
                    print("sending", flush=True)
                if outcome != "ok" and set(outcomes) <= {"ok"}:
                    print("refused", flush=True)
                outcomes[outcome] += 1
            if outcome != "ok":
                stop.wait(PAUSE)

    with ThreadPoolExecutor(chosen.threads) as pool:
        list(pool.map(loop, range(chosen.threads)))
    print("outcomes: " + json.dumps(outcomes), flush=True)


if __name__ == "__main__":
    main()
