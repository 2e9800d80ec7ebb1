"""What must come of an order in two languages, and the account of what did."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import click

import shop_path  # noqa: F401  (importing makes the shop's modules importable)
from walkthrough.account import facts, heading, remark, table
from walkthrough.customer import Placed
from walkthrough.story import Effect, Visit


@dataclass(frozen=True)
class Role:
    """A process that takes part."""

    name: str
    command: str
    pid: int


@dataclass(frozen=True)
class Account:
    """All facts of one run."""

    broker: str
    roles: Sequence[Role]
    visits: Sequence[Visit]
    placed: Sequence[Placed]
    orders: Sequence[dict[str, Any]]
    parcels: Sequence[dict[str, Any]]
    effects: Sequence[Effect]
    words: Sequence[str]
    seconds: float

    @property
    def missing(self) -> list[str]:
        """What should have happened and has not."""
        return [effect.text for effect in self.effects if not effect.there]

    def as_dict(self) -> dict[str, Any]:
        """The same, for ``--json``."""
        return {
            "ok": not self.missing,
            "missing": self.missing,
            "broker": self.broker,
            "processes": {role.name: {"command": role.command, "pid": role.pid} for role in self.roles},
            "requests": [asdict(placed) for placed in self.placed],
            "orders": self.orders,
            "parcels": self.parcels,
            "warehouse_said": self.words,
            "effects": len(self.effects),
            "seconds": round(self.seconds, 3),
        }


def effects_of(
    order: dict[str, Any],
    parcel: dict[str, Any] | None,
    site_queue: str,
    is_warehouse: Callable[[int], bool],
    is_worker: Callable[[int], bool],
) -> list[Effect]:
    """Everything that one order must lead to, in either language."""
    number = f"order {order['order']}"
    ran = {run["receiver"] for run in order["runs"]}
    effects = [Effect(f"{number}: {name} ran, in Python", name in ran) for name in order["expected"]]
    effects.append(Effect(f"{number}: there is a parcel", parcel is not None))
    if parcel is None:
        return effects
    return [
        *effects,
        Effect(f"{number}: pack ran, in Rust", is_warehouse(parcel["packed_by"])),
        Effect(f"{number}: the warehouse is the sender", parcel["said_by"] == "warehouse"),
        Effect(f"{number}: keep_parcel ran in the site's worker", is_worker(parcel["written_by"])),
        Effect(f"{number}: the answer came by the queue {site_queue}", parcel["queue"] == site_queue),
        Effect(
            f"{number}: insured for {order['total']}, to the digit",
            Decimal(parcel["insured_for"]) == Decimal(order["total"]),
        ),
        Effect(f"{number}: packed after it was placed", parcel["packed_at"] >= order["placed_at"]),
    ]


def tell_roles(roles: Iterable[Role], broker: str) -> None:
    """Say who takes part."""
    heading("Async Signals: a shop in Python, a warehouse in Rust, and the signals between them")
    facts([*((role.name, f"{role.command}  (process {role.pid})") for role in roles), ("broker", broker)])


def tell(account: Account) -> None:
    """Everything after the waiting."""
    heading("What ran where")
    rows = []
    for order in account.orders:
        number = str(order["order"])
        parcel = next((each for each in account.parcels if each["order_id"] == order["order"]), None)
        # All receivers of a message run in one process, and the shop's say in which.
        told = next((str(run["pid"]) for run in order["runs"] if run["signal"] == "order_placed"), "–")
        rows.append((number, "order_placed", "the site", "tell_the_warehouse", "Python", told))
        if parcel is not None:
            packed, written = str(parcel["packed_by"]), str(parcel["written_by"])
            rows.append((number, "order_placed", "tell_the_warehouse", "log, pack", "Rust", packed))
            rows.append((number, "parcel_packed", "pack", "keep_parcel", "Python", written))
    table(("order", "signal", "sent by", "received by", "in", "process"), rows, numbers=(0, 5))
    remark("(The shop's own receivers of order_placed ran beside tell_the_warehouse: `make demo` tells of them.)")

    heading("What the warehouse says")
    for line in account.words:
        click.echo(f"  {line}")

    heading("The rows that Django has written")
    table(
        ("order", "insured for", "packed at", "said by", "packed by", "written by", "message"),
        [
            (
                str(parcel["order_id"]),
                parcel["insured_for"],
                parcel["packed_at"],
                parcel["said_by"],
                f"process {parcel['packed_by']}",
                f"process {parcel['written_by']}",
                parcel["message"],
            )
            for parcel in account.parcels
        ],
        numbers=(0, 1),
    )
    click.echo()
    if account.missing:
        click.secho(f"{len(account.missing)} effects are missing:", fg="red", bold=True)
        for text in account.missing:
            click.echo(f"  {text}")
    else:
        text = f"All {len(account.effects)} effects are there, {account.seconds:.1f} s after the first order."
        click.secho(text, fg="green", bold=True)
