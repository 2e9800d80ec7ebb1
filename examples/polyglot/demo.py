#!/usr/bin/env python
"""The shop of ``examples/shop`` and a warehouse in Rust, in real processes on one broker.

Starts the site, the site's worker and the warehouse, places orders over HTTP, waits until the
warehouse has answered each with a signal of its own and Django has written its row, and tells
what ran where. Ends with an error that names what is missing, if anything is, and leaves no
process behind.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import click

import shop_path  # noqa: F401  (importing makes the shop's modules importable)
from parcel_story import Account, Role, effects_of, tell, tell_roles
from walkthrough.account import heading, remark, tell_order
from walkthrough.customer import Customer, UnexpectedAnswer
from walkthrough.processes import Child, Household, ProcessFailed
from walkthrough.story import VISITS, Effect

PROJECT = Path(__file__).resolve().parent
#: How long a process may take to be ready, in seconds.
START_UP = 60.0
#: How long building the warehouse may take, in seconds: the first time it is everything that it needs.
BUILDING = 900.0
#: What the warehouse prints of an order, without its log.
WORDS = re.compile(r"^(?:order \d+|packed): .+$", re.MULTILINE)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--broker", metavar="URL", help="redis://… or amqp://… of a server that is there.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for effects.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def main(broker: str | None, timeout: float, as_json: bool) -> None:
    """Run a tea shop in Python whose parcels are packed by a program in Rust."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _leave)
    try:
        with shop_and_warehouse(broker, quiet=as_json) as it:
            account = it.run(timeout)
            if as_json:
                click.echo(json.dumps(account.as_dict(), indent=2))
            else:
                tell(account)
            if account.missing:
                for child in (it.worker, it.warehouse):
                    click.echo(f"\nThe end of the {child.name}'s log:\n{child.tail()}", err=True)
                sys.exit(1)
    except ProcessFailed as problem:
        fail(str(problem), problem.log)
    except (UnexpectedAnswer, OSError) as problem:
        fail(f"the site did not answer as it should: {problem}")
    except KeyboardInterrupt:
        fail("interrupted", code=130)


@contextmanager
def shop_and_warehouse(broker: str | None, quiet: bool) -> "Iterator[Running]":
    """All three processes, ready; they are gone afterwards."""
    # On a server that others use too, queues of our own: a worker must not eat their tasks.
    suffix = f"-polyglot-{uuid4().hex[:8]}" if broker else ""
    site_queues = [f"celery{suffix}", f"high_priority{suffix}"]
    with tempfile.TemporaryDirectory(prefix="async-signals-polyglot-") as directory:
        data = Path(directory)
        broker_url = broker or f"sqla+sqlite:///{data / 'broker.sqlite3'}"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
            "DJANGO_SETTINGS_MODULE": "polyglot_site.settings",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "SHOP_BROKER_URL": broker_url,
            "SHOP_DATA_DIR": directory,
            "SHOP_DEFAULT_QUEUE": site_queues[0],
            "SHOP_URGENT_QUEUE": site_queues[1],
            "SHOP_RUSH_QUEUE": f"page_views{suffix}",
            # The warehouse's, which knows nothing of Django's settings.
            "CELERY_BROKER_URL": broker_url,
            "WAREHOUSE_QUEUE": f"warehouse{suffix}",
            "SITE_QUEUE": site_queues[0],
        }
        household = Household(data, PROJECT, environment)
        opened = False
        try:
            with household:
                program = build_the_warehouse(household)
                progress("making the databases")
                household.manage("migrate", "--verbosity", "0")
                progress("starting the site, its worker and the warehouse")
                site = household.start("site", [sys.executable, "manage.py", "runserver", "--noreload", "127.0.0.1:0"])
                listening = ["-A", "polyglot_site", "worker", "-Q", ",".join(site_queues), "--concurrency", "2"]
                worker = household.start("worker", [sys.executable, "-m", "async_signals", *listening, "-l", "INFO"])
                warehouse = household.start("warehouse", [program])
                address = site.wait_for(r"server at (http://[^\s/]+)/", START_UP)[1]
                worker.wait_for(r"\bready\.", START_UP, r"No connection to the broker")
                warehouse.wait_for(r"the warehouse is open", START_UP)
                progress("")
                opened = True
                roles = [
                    Role("site", address, site.pid),
                    Role("worker", f"async-signals {' '.join(listening)}", worker.pid),
                    Role("warehouse", f"{Path(program).name}, a program in Rust", warehouse.pid),
                ]
                yield Running(household, roles, worker, warehouse, site_queues[0], without_password(broker_url), quiet)
        finally:
            progress("")
            if broker and opened:
                forget_queues(household)


def build_the_warehouse(household: Household) -> str:
    """Have cargo build it, and say where the program is; `WAREHOUSE_PROGRAM` names one that is built already."""
    if built_already := os.environ.get("WAREHOUSE_PROGRAM"):
        return built_already
    if shutil.which("cargo") is None:
        raise ProcessFailed("cargo is not there: the warehouse is a program in Rust, see https://rustup.rs")
    progress("building the warehouse (the first time takes minutes)")
    arguments = ["--locked", "--package", "warehouse", "--message-format", "json-render-diagnostics"]
    cargo = household.start("cargo", ["cargo", "build", *arguments])
    try:
        code = cargo.process.wait(BUILDING)
    except subprocess.TimeoutExpired:
        raise ProcessFailed(f"building the warehouse took more than {BUILDING:g} s", cargo.tail()) from None
    household.children.remove(cargo)
    built = re.findall(r'"executable":"((?:[^"\\]|\\.)+)"', cargo.log.read_text(errors="replace"))
    if code != 0 or not built:
        raise ProcessFailed("the warehouse could not be built", cargo.tail())
    program: str = json.loads(f'"{built[-1]}"')
    return program


def forget_queues(household: Household) -> None:
    """Delete our queues from somebody else's broker, if it is still there."""
    try:
        with household:
            household.manage("forget_all_queues", timeout=20.0)
    except ProcessFailed as problem:
        click.secho(f"\nThe demo's queues may still be on the broker: {problem}", fg="yellow", err=True)


@dataclass
class Running:
    """The shop and its warehouse, at work."""

    household: Household
    roles: list[Role]
    worker: Child
    warehouse: Child
    site_queue: str
    broker: str
    quiet: bool

    def run(self, timeout: float) -> Account:
        """Place the orders and wait for what must come of them."""
        if not self.quiet:
            tell_roles(self.roles, self.broker)
            heading("Orders over HTTP, and how long each request took")
        started = time.monotonic()
        customer = Customer(self.roles[0].command)
        placed = []
        for visit in VISITS:
            placed.append(customer.place_order(visit.name, visit.email, visit.basket, visit.jam_printer))
            if not self.quiet:
                tell_order(visit, placed[-1])
        if not self.quiet:
            remark("(The first send of a process loads Celery and connects; the others show what one costs.)")

        orders: list[dict[str, Any]] = []
        parcels: list[dict[str, Any]] = []
        effects: list[Effect] = []

        def all_there() -> bool:
            orders[:] = [customer.get_json(f"/orders/{each.order}.json") for each in placed]
            parcels[:] = customer.get_json("/parcels.json")["parcels"]
            packed = {parcel["order_id"]: parcel for parcel in parcels}
            effects[:] = [
                effect
                for order in orders
                for effect in effects_of(
                    order, packed.get(order["order"]), self.site_queue, self.warehouse.owns, self.worker.owns
                )
            ]
            there = sum(effect.there for effect in effects)
            progress(f"waiting for the receivers: {there} effects after {time.monotonic() - started:.1f} s")
            return there == len(effects)

        self.household.wait_until(all_there, timeout)
        progress("")
        return Account(
            broker=self.broker,
            roles=self.roles,
            visits=VISITS,
            placed=placed,
            orders=orders,
            parcels=parcels,
            effects=effects,
            words=WORDS.findall(self.warehouse.log.read_text(errors="replace")),
            seconds=time.monotonic() - started,
        )


def progress(text: str) -> None:
    """One line that changes in a terminal, and nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", nl=False, err=True)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    password = urlsplit(url).password
    return url if password is None else url.replace(f":{password}@", ":…@", 1)


def fail(problem: str, log: str = "", code: int = 1) -> NoReturn:
    """Say what went wrong and end."""
    click.secho(f"\n{problem}", fg="red", err=True)
    if log:
        click.echo(f"\nThe end of its log:\n{log}", err=True)
    sys.exit(code)


def _leave(signum: int, frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # once is enough: from here on all is put away
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
