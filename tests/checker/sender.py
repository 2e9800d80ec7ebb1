"""Sends signals of the checker, and writes down how each send went.

sender.py --commands PIPE     reads what to send from a named pipe, one JSON object a line: {"signal": …, "tokens":
                              […], "named": {…}, "options": {…}}; prints `sent` after each
sender.py SIGNAL [--threads N] [--rate N]
                              sends until it is told to stop (SIGTERM); prints `sending` after the first send,
                              `refused` after the first that failed, and at the end `outcomes: {…}`
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

from async_signals import AsyncSignal  # noqa: E402
from checker import newer, signals  # noqa: E402
from checker.journal import Journal  # noqa: E402
from checker.sending import send  # noqa: E402

#: How long a sender waits after a send that failed at once, in seconds: an outage shall not fill the journal.
PAUSE = 0.05

journal = Journal(Path(os.environ["PROJECT_FOLDER"]) / "sends.jsonl")


def named(signal: str) -> AsyncSignal:
    """The checker's signal of this name."""
    found: AsyncSignal = getattr(signals, signal, None) or getattr(newer, signal)
    return found


def obey(pipe: str) -> None:
    """Sends what it is told to, until the pipe ends."""
    with open(pipe, encoding="utf-8") as commands:
        for line in commands:
            command = json.loads(line)
            for token in command["tokens"]:
                send(
                    named(command["signal"]),
                    command["signal"],
                    journal,
                    token=token,
                    options=command["options"],
                    **command["named"],
                )
            print("sent", flush=True)


def load(name: str, threads: int, rate: float | None) -> None:
    """Sends until SIGTERM comes."""
    stop = threading.Event()
    signals_of_the_system.signal(signals_of_the_system.SIGTERM, lambda *_: stop.set())
    signal = named(name)
    numbers = itertools.count()
    outcomes: Counter[str] = Counter()
    told = threading.Lock()
    start = time.monotonic()

    def loop(_: int) -> None:
        while not stop.is_set():
            if rate and stop.wait(max(0.0, start + next(numbers) / rate - time.monotonic())):
                return
            outcome = send(signal, name, journal)
            with told:
                if not outcomes:
                    print("sending", flush=True)
                if outcome != "ok" and set(outcomes) <= {"ok"}:
                    print("refused", flush=True)
                outcomes[outcome] += 1
            if outcome != "ok":
                stop.wait(PAUSE)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loop, range(threads)))
    print("outcomes: " + json.dumps(outcomes), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("signal", nargs="?")
    parser.add_argument("--commands")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, help="sends a second, of all threads together")
    chosen = parser.parse_args()
    if chosen.commands:
        obey(chosen.commands)
    else:
        load(chosen.signal, chosen.threads, chosen.rate)


if __name__ == "__main__":
    main()
