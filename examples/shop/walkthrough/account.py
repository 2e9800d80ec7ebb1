"""Tells what happened, for people and for programs."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from .customer import Placed
from .rush import Rate
from .story import Effect, Visit


@dataclass(frozen=True)
class Account:
    """All facts of one run of the demo."""

    address: str
    broker: str
    worker: str
    site_pid: int
    worker_pid: int
    visits: Sequence[Visit]
    placed: Sequence[Placed]
    orders: Sequence[dict[str, Any]]
    activity: dict[str, Any]
    effects: Sequence[Effect]
    seconds: float
    rates: Sequence[Rate] = ()

    @property
    def missing(self) -> list[str]:
        """What should have happened and has not."""
        return [effect.text for effect in self.effects if not effect.there]

    @property
    def receiver_seconds(self) -> float:
        """How long receivers worked outside any request."""
        return sum(run["took_ms"] for run in self.activity["runs"] if run["message"]) / 1000

    def as_dict(self) -> dict[str, Any]:
        """The same, for ``--json``."""
        return {
            "ok": not self.missing,
            "missing": self.missing,
            "broker": self.broker,
            "worker": {"command": self.worker, "pid": self.worker_pid},
            "site": {"address": self.address, "pid": self.site_pid},
            "requests": [asdict(placed) for placed in self.placed],
            "orders": self.orders,
            "runs": self.activity["runs"],
            "rows": self.activity["counts"],
            "effects": len(self.effects),
            "seconds": round(self.seconds, 3),
            "rates": {rate.worker: round(rate.per_second, 1) for rate in self.rates},
        }


def heading(text: str) -> None:
    """A line that begins a part."""
    click.echo()
    click.secho(text, bold=True)


def remark(text: str) -> None:
    """A line that explains what stands above it."""
    click.secho(f"\n  {text}", dim=True)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, in two columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"  {click.style(name.ljust(width), dim=True)}  {value}")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    """A table; ``numbers`` are the columns that are set flush right."""
    widths = [max(len(str(row[i])) for row in (columns, *rows)) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = (
            str(cell).rjust(width) if i in numbers else str(cell).ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  " + "  ".join(cells).rstrip()

    click.secho(line(columns), dim=True)
    for row in rows:
        click.echo(line(row))


def tell_order(visit: Visit, placed: Placed) -> None:
    """One line for one request."""
    basket = ", ".join(f"{quantity} × {product}" for product, quantity in visit.basket.items())
    took = click.style(f"{placed.milliseconds:6.1f} ms", fg="cyan")
    click.echo(f"  order {placed.order}  {took}  {visit.name}: {basket}")
    click.secho(f"                     {visit.remark}", dim=True)


def tell(account: Account) -> None:
    """Everything after the waiting."""
    heading("What ran where and when")
    for visit, order in zip(account.visits, account.orders, strict=True):
        click.echo(f"\n  Order {order['order']}, {visit.name}, € {order['total']}")
        _tell_runs(order["runs"], account.site_pid)
    others = [run for run in account.activity["runs"] if run["order"] is None]
    if others:
        click.echo("\n  Sent by receivers, from the worker")
        _tell_runs(others, account.site_pid)

    if account.broker.startswith("sqla") and account.worker.startswith("celery"):
        remark("(Celery looks into an SQLite broker once a second: that is most of the waiting.)")

    heading("What the rows say")
    rows = [
        (
            str(order["order"]),
            "yes" if order["paid"] else "no",
            order["total"],
            (order["invoice"] or {}).get("number", "–"),
            (order["email"] or {}).get("to", "–"),
            "{courier}, € {price}".format(**order["shipment"]) if order["shipment"] else "–",
            ", ".join(f"{each['quantity']:+} {each['product']}" for each in order["movements"]),
        )
        for order in account.orders
    ]
    columns = ("order", "paid", "total", "invoice", "e-mail to", "courier", "shelf")
    table(columns, rows, numbers=(0, 2))
    for letter in account.activity["letters_to_suppliers"]:
        click.echo(f"  to {letter['to']}: {letter['subject']}")
    counts = account.activity["counts"]
    click.echo("  " + ", ".join(f"{count} {name}" for name, count in counts.items()))

    if account.rates:
        _tell_rates(account.rates)

    heading("In short")
    runs = account.activity["runs"]
    away = [run for run in runs if run["message"]]
    pids = sorted({run["pid"] for run in away})
    messages = len({run["message"] for run in away})
    requests = sum(placed.milliseconds for placed in account.placed)
    count = len(account.placed)
    click.echo(
        f"  {messages} messages ran {len(away)} receivers in "
        f"{'processes' if len(pids) > 1 else 'process'} {', '.join(map(str, pids))}; "
        f"{len(runs) - len(away)} synchronous ones ran in the site, process {account.site_pid}."
    )
    click.echo(
        f"  Customers waited {requests:.0f} ms for {count} orders, "
        f"and not for the {account.receiver_seconds * 1000:.0f} ms of work that followed."
    )
    if account.missing:
        click.secho(f"\n  {len(account.missing)} effects are missing:", fg="red", bold=True)
        for text in account.missing:
            click.secho(f"    {text}", fg="red")
    else:
        click.secho(f"  All {len(account.effects)} effects are there.", fg="green", bold=True)


def _tell_rates(rates: Sequence[Rate]) -> None:
    heading("A crowd of small signals: one queue, two processes, one worker after the other")
    slowest = min(rate.per_second for rate in rates)
    rows = [
        (
            rate.worker,
            f"{rate.signals:,}",
            f"{rate.seconds:.2f} s",
            f"{rate.per_second:,.0f}",
            f"{rate.per_second / slowest:.0f} x",
        )
        for rate in rates
    ]
    table(("worker", "signals", "took", "a second", "beside"), rows, numbers=(1, 2, 3, 4))


def _tell_runs(runs: Sequence[dict[str, Any]], site_pid: int) -> None:
    rows = [
        (
            run["signal"],
            run["receiver"],
            "site" if run["pid"] == site_pid else run["process"],
            str(run["pid"]),
            run["queue"] or "–",
            f"{run['waited_ms']:.0f} ms" if run["message"] else "–",
            f"{run['took_ms']:.0f} ms",
            f"failed: {run['failure']}" if run["failure"] else "done",
        )
        for run in runs
    ]
    columns = ("signal", "receiver", "process", "pid", "queue", "waited", "took", "outcome")
    table(columns, rows, numbers=(3, 5, 6))
