"""Runs the benchmarks on private servers and sets them beside Celery's own publishing.

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
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--broker", "only", type=click.Choice(["redis", "rabbitmq"]), help="Measure on this one only.")
def main(as_json: bool, only: str | None) -> None:
    """Measure sends, side by side with Celery's own."""
    results: dict[str, Any] = {}
    for name in [only] if only else ["redis", "rabbitmq"]:
        with broker(name) as (url, server):
            say(f"{name}: sends from Python, beside apply_async")
            sends = python("publishing.py", url)
            say(f"{name}: sustained publishing from Rust")
            sustained = rust(url)
            baseline = sustained.pop("bare_lapin") or redis_benchmark(server, sustained["envelope_bytes"])
            results[name] = {**sends, "sustained": {**sustained, "bare": baseline}}
    say("memory of an idle publisher")
    results["memory"] = python("memory.py")
    if as_json:
        click.echo(json.dumps(results))
    else:
        report(results)


def report(results: dict[str, Any]) -> None:
    """Prints the tables."""
    rows = []
    for name in ("redis", "rabbitmq"):
        if name not in results:
            continue
        p50, rates, sustained = (results[name][key] for key in ("p50_us", "per_second", "sustained"))
        rows += [
            row(name, "background", "p50 of a background send", p50["celery"], p50["background"], "µs"),
            row(name, "confirmed", "p50 of a confirmed send", p50["celery_confirmed"], p50["confirmed"], "µs"),
            row(name, "threads", "8 threads, confirmed", rates["celery_confirmed"], rates["confirmed"], "/s"),
            row(name, "sustained", "from Rust, beside a bare loop", sustained["bare"], sustained["ours"], "/s"),
        ]
    table(("broker", "what", "beside", "ours", "ratio", "aim"), rows)
    used = results["memory"]["publisher_bytes"] / MIB
    click.echo(f"\nan idle publisher takes {used:.1f} MiB above Python with Django and Celery (aim: under 15)")


def row(broker: str, key: str, what: str, beside: list[float], ours: list[float], unit: str) -> tuple[str, ...]:
    """A line of the table: medians, and the ratio in which more is better."""
    other, own = statistics.median(beside), statistics.median(ours)
    ratio = other / own if unit == "µs" else own / other
    aim = AIMS[broker, key]
    return (broker, what, f"{other:,.0f} {unit}", f"{own:,.1f} {unit}", f"{ratio:.1f}x", f"{aim}x")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Prints columns as wide as they need to be."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, tuple("-" * width for width in widths), *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def python(script: str, *arguments: str) -> Any:
    """What a benchmark in Python prints."""
    command = [sys.executable, str(HERE / script), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def rust(url: str) -> Any:
    """What the benchmark in Rust prints."""
    command = ["cargo", "bench", "--quiet", "--locked", "--package", "celery-async-signals"]
    run = subprocess.run([*command, "--bench", "sustained", "--", url], check=True, stdout=subprocess.PIPE)
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
