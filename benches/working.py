"""Measures our worker side by side with a stock Celery worker on the same queue and the same receiver.

Run as ``working.py BROKER_URL``; prints one JSON object. The two take turns: each round fills a queue, lets one
worker empty most of it, and does the same for the other.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqp.exceptions import ChannelError

HERE = Path(__file__).parent
QUEUE = "bench"
CONCURRENCY = 2
ROUNDS = 3
#: How many messages each worker is given a round: some seconds of work.
MESSAGES = {"stock": 4_000, "ours": 150_000}
#: How many sends are timed, one after the other, to an idle worker.
TIMED = 100
COMMANDS = {
    "stock": ["-m", "celery", "-A", "bench_app", "worker", "-P", "prefork", "--without-gossip", "--without-mingle"],
    "ours": ["-m", "async_signals", "worker", "-A", "bench_app"],
}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def worker(kind: str) -> Iterator[int]:
    """A worker of its own process group, ended with all its children."""
    command = [sys.executable, *COMMANDS[kind], "-Q", QUEUE, "-c", str(CONCURRENCY), "-l", "WARNING"]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Queue:
    """What stands in the queue, asked of the broker by kombu."""

    def __init__(self, app: Any) -> None:
        self._channel = app.connection_for_read().channel()
        with app.pool.acquire() as connection:
            app.amqp.queues[QUEUE](connection.default_channel).declare()

    def length(self) -> int:
        try:
            return self._channel.queue_declare(QUEUE, passive=True).message_count
        except ChannelError:
            return 0  # on Redis there is no queue without messages

    def purge(self) -> None:
        self._channel.queue_purge(QUEUE)

    def falls_to(self, left: int, patience: float = 120) -> float:
        """When there are no more than so many messages left."""
        end = time.monotonic() + patience
        while self.length() > left:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.length()} messages are left in the queue after {patience} s")
            time.sleep(0.002)
        return time.monotonic()


def group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def cpu_seconds(leader: int) -> float:
    """What the processes of a group have computed so far."""
    total = 0
    for pid in group(leader):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident(leader: int) -> int:
    """What the processes of a group hold in memory, in bytes; pages they share count once."""
    total = 0
    for pid in group(leader):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def throughput(kind: str, queue: Queue, signal_: Any) -> dict[str, float]:
    """Signals a second, and CPU seconds for ten thousand of them, between a tenth and nine tenths of a full queue."""
    from async_signals import flush

    count = MESSAGES[kind]
    queue.purge()
    for number in range(count):
        signal_.send(None, order_id=number, email="ada@example.org", express=True)
    flush(120)
    with worker(kind) as leader:
        start = queue.falls_to(count * 9 // 10)
        computed, first = cpu_seconds(leader), queue.length()
        end = queue.falls_to(count // 10)
        last = queue.length()
        done = first - last
        result = {
            "per_second": done / (end - start),
            "cpu_seconds_per_10000": (cpu_seconds(leader) - computed) / done * 10_000,
        }
        queue.falls_to(0)
    return result


def latency(kind: str, signal_: Any, stamps: Path) -> dict[str, float]:
    """From before a send to the receiver's first line in an idle worker, and the memory that worker holds."""
    stamps.write_bytes(b"")
    times = []
    with worker(kind) as leader:
        for number in range(TIMED + 5):
            sent = time.monotonic_ns()
            signal_.send(None, order_id=number, email="ada@example.org", express=True)
            end = time.monotonic() + 60
            while len(lines := stamps.read_bytes().splitlines()) <= number:
                if time.monotonic() > end:
                    raise TimeoutError(f"the {kind} worker never ran signal {number}")
                time.sleep(0.0005)
            if number >= 5:  # the first ones wait for the worker to start
                times.append((int(lines[number]) - sent) / 1000)
            time.sleep(0.01)
        return {"p50_us": statistics.median(times), "resident_bytes": resident(leader)}


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder, "stamps")
        os.environ.update(BENCH_BROKER=sys.argv[1], BENCH_STAMPS=str(stamps))
        sys.path.insert(0, str(HERE))
        import bench_app

        queue = Queue(bench_app.app)
        results: dict[str, dict[str, list[float]]] = {kind: {} for kind in COMMANDS}
        for _ in range(ROUNDS):
            for kind, figures in results.items():
                measured = throughput(kind, queue, bench_app.counted) | latency(kind, bench_app.timed, stamps)
                for name, value in measured.items():
                    figures.setdefault(name, []).append(value)
        queue.purge()
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
