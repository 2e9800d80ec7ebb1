"""Runs the benchmarks on private servers and sets them beside Celery's own publishing and its worker.

``make bench`` calls it. Every ratio comes from one run in which both sides took turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from servers.rabbitmq import RabbitmqServer  # noqa: E402
from servers.redis import RedisServer  # noqa: E402

MIB = 1024 * 1024
#: Row, what is measured, how far it should be ahead: by broker.
AIMS = {
    ("redis", "background"): 100,
    ("redis", "confirmed"): 4,
    ("redis", "threads"): 20,
    ("redis", "sustained"): 0.6,
    ("rabbitmq", "background"): 60,
    ("rabbitmq", "confirmed"): 2,
    ("rabbitmq", "threads"): 5,
    ("rabbitmq", "sustained"): 0.8,
    ("redis", "per_second"): 100,
    ("redis", "bare"): 0.5,
    ("redis", "cpu_seconds_per_10000"): 20,
    ("redis", "p50_us"): 5,
    ("redis", "resident_bytes"): 1,
    ("rabbitmq", "per_second"): 10,
    ("rabbitmq", "bare"): 0.75,
    ("rabbitmq", "cpu_seconds_per_10000"): 5,
    ("rabbitmq", "p50_us"): 5,
    ("rabbitmq", "resident_bytes"): 1,
}
#: The bare loop beside the worker: takes and acknowledges, and does nothing else.
BARE = {"redis": "taking", "rabbitmq": "consuming"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--broker", "only", type=click.Choice(["redis", "rabbitmq"]), help="Measure on this one only.")
@click.option("--part", type=click.Choice(["publishing", "working"]), help="Measure this half only.")
def main(as_json: bool, only: str | None, part: str | None) -> None:
    """Measure sends and workers, side by side with Celery's own."""
    results: dict[str, Any] = {}
    for name in [only] if only else ["redis", "rabbitmq"]:
        with broker(name) as (url, server):
            results[name] = {}
            if part != "working":
                results[name].update(publishing(name, url, server))
            if part != "publishing":
                results[name].update(working(name, url))
    if part != "working":
        say("memory of an idle publisher")
        results["memory"] = python("memory.py")
        say("the test kit, beside a plain Signal.send")
        results["testing"] = python("testing.py")
    if as_json:
        click.echo(json.dumps(results))
    else:
        report(results)


def publishing(name: str, url: str, server: Any) -> dict[str, Any]:
    """Sends, beside Celery's own."""
    say(f"{name}: sends from Python, beside apply_async")
    sends = python("publishing.py", url)
    say(f"{name}: sustained publishing from Rust")
    sustained = rust("sustained", url)
    baseline = sustained.pop("bare_lapin") or redis_benchmark(server, sustained["envelope_bytes"])
    return {**sends, "sustained": {**sustained, "bare": baseline}}


def working(name: str, url: str) -> dict[str, Any]:
    """Workers, beside Celery's own."""
    say(f"{name}: both workers, one after the other")
    workers = python("working.py", url)
    say(f"{name}: a bare loop that takes and acknowledges")
    return {"workers": workers, "bare": rust(BARE[name], url)["bare"]}


def report(results: dict[str, Any]) -> None:
    """Prints the tables."""
    rows = []
    for name in ("redis", "rabbitmq"):
        if name in results and "workers" in results[name]:
            stock, ours = (results[name]["workers"][kind] for kind in ("stock", "ours"))
            rate, bare = ours["per_second"], results[name]["bare"]
            cpu, p50, memory = "cpu_seconds_per_10000", "p50_us", "resident_bytes"
            rows += [
                row(name, "per_second", "signals run, two processes", stock["per_second"], rate, "/s"),
                row(name, "bare", "beside a bare loop", bare, rate, "/s"),
                row(name, cpu, "CPU for 10,000 signals", stock[cpu], ours[cpu], "s", less=True),
                row(name, p50, "p50 from send to receiver", stock[p50], ours[p50], "µs", less=True),
                row(name, memory, "memory of an idle worker", mib(stock[memory]), mib(ours[memory]), "MiB", less=True),
            ]
        if name not in results or "p50_us" not in results[name]:
            continue
        p50, rates, sustained = (results[name][key] for key in ("p50_us", "per_second", "sustained"))
        rows += [
            row(name, "background", "p50 of a background send", p50["celery"], p50["background"], "µs", less=True),
            row(
                name, "confirmed", "p50 of a confirmed send", p50["celery_confirmed"], p50["confirmed"], "µs", less=True
            ),
            row(name, "threads", "8 threads, confirmed", rates["celery_confirmed"], rates["confirmed"], "/s"),
            row(name, "sustained", "from Rust, beside a bare loop", sustained["bare"], sustained["ours"], "/s"),
        ]
    table(("broker", "what", "beside", "ours", "ratio", "aim"), rows)
    if "memory" in results:
        used = results["memory"]["publisher_bytes"] / MIB
        click.echo(f"\nan idle publisher takes {used:.1f} MiB above Python with Django and Celery (aim: under 15)")
    if "testing" in results:
        added = results["testing"]["added_ms"]
        click.echo(f"a test that captures and runs one signal takes {added:.2f} ms above its receivers (aim: under 2)")


def row(
    broker: str, key: str, what: str, beside: list[float], ours: list[float], unit: str, *, less: bool = False
) -> tuple[str, ...]:
    """A line of the table: medians, and the ratio in which more is better (`less`: of figures where less is)."""
    other, own = statistics.median(beside), statistics.median(ours)
    ratio = other / own if less else own / other
    digits = ".2f" if unit == "s" else ",.1f"
    return (
        broker,
        what,
        f"{other:{digits}} {unit}",
        f"{own:{digits}} {unit}",
        f"{ratio:.2f}x",
        f"{AIMS[broker, key]}x",
    )


def mib(sizes: list[float]) -> list[float]:
    """Bytes, as people say them."""
    return [size / MIB for size in sizes]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Prints columns as wide as they need to be."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, tuple("-" * width for width in widths), *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def python(script: str, *arguments: str) -> Any:
    """What a benchmark in Python prints."""
    command = [sys.executable, str(HERE / script), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def rust(bench: str, url: str) -> Any:
    """What a benchmark in Rust prints."""
    command = ["cargo", "bench", "--quiet", "--locked", "--package", "celery-async-signals"]
    run = subprocess.run([*command, "--bench", bench, "--", url], check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout.decode().strip().splitlines()[-1])


def redis_benchmark(server: Any, size: int) -> list[float]:
    """Messages a second of Redis' own benchmark with as many bytes each."""
    command = ["redis-benchmark", "-p", str(server.port), "-t", "lpush", "-P", "32", "-n", "200000", "-d", str(size)]
    rates = []
    for _ in range(3):
        output = subprocess.run([*command, "--csv"], check=True, stdout=subprocess.PIPE, text=True).stdout
        rates.append(float(output.strip().splitlines()[-1].split(",")[1].strip('"')))
        with server.client(server.url()) as client:
            client.flushall()
    return rates


@contextmanager
def broker(name: str) -> Iterator[tuple[str, Any]]:
    """A private server and its URL."""
    with tempfile.TemporaryDirectory() as folder:
        server: Any = RedisServer(Path(folder)) if name == "redis" else RabbitmqServer(Path(folder))
        try:
            yield server.fresh_url(), server
        finally:
            server.stop()


def say(text: str) -> None:
    """Progress, where it does not disturb what scripts read."""
    click.echo(f"... {text}", err=True)


if __name__ == "__main__":
    main()
