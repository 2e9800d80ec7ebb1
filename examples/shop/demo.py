#!/usr/bin/env python
"""A shop, a worker, and the signals between them: the whole way, in real processes.

Starts the site and a Celery worker, places orders over HTTP, waits until every receiver
has done its work, and tells what ran where and when. Ends with an error that names what
is missing, if anything is, and leaves no process behind.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import uuid4

import click

from walkthrough.account import Account, facts, heading, remark, tell, tell_order
from walkthrough.customer import Customer, UnexpectedAnswer
from walkthrough.processes import Child, Household, ProcessFailed
from walkthrough.rush import measure
from walkthrough.story import VISITS, Effect, Queues, effects_of_all, effects_of_order
from walkthrough.workers import WORKERS, Worker

PROJECT = Path(__file__).resolve().parent
#: How long a process may take to be ready, in seconds.
START_UP = 60.0
#: Signals that end the demo in good order.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--broker", metavar="URL", help="redis://… or amqp://… of a server that is there.")
@click.option("--worker", type=click.Choice(list(WORKERS)), default="async-signals", show_default=True)
@click.option("--rates/--no-rates", default=True, help="Measure both workers' rates as well.  [default: rates]")
@click.option("--serve", is_flag=True, help="Keep the shop open afterwards, until Ctrl-C.")
@click.option("--port", default=0, help="The site's port.  [default: a free one]")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for effects.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def main(broker: str | None, worker: str, rates: bool, serve: bool, port: int, timeout: float, as_json: bool) -> None:
    """Run a tea shop whose receivers work in another process."""
    for each in ENDINGS:
        signal.signal(each, _leave)
    say = Narrator(quiet=as_json)
    try:
        with shop(broker, WORKERS[worker], port, say) as it:
            account = it.run(timeout)
            if rates and not account.missing:
                account = replace(account, rates=measure(it.household, it.queues, say.progress))
            if as_json:
                click.echo(json.dumps(account.as_dict(), indent=2))
            else:
                tell(account)
            if account.missing:
                say.log(it.worker)
                sys.exit(1)
            if serve:
                it.stay_open()
    except ProcessFailed as problem:
        fail(str(problem), problem.log)
    except (UnexpectedAnswer, OSError) as problem:
        fail(f"the site did not answer as it should: {problem}")
    except KeyboardInterrupt:
        fail("interrupted", code=130)


@contextmanager
def shop(broker: str | None, worker: Worker, port: int, say: "Narrator") -> "Iterator[Shop]":
    """A shop with its site and its worker running; both are gone afterwards."""
    # On a server that others use too, queues of our own: a worker must not eat their tasks.
    suffix = f"-shop-{uuid4().hex[:8]}" if broker else ""
    queues = Queues(default=f"celery{suffix}", urgent=f"high_priority{suffix}", rush=f"page_views{suffix}")
    with tempfile.TemporaryDirectory(prefix="async-signals-shop-") as directory:
        data = Path(directory)
        broker_url = broker or f"sqla+sqlite:///{data / 'broker.sqlite3'}"
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "shop_site.settings",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "SHOP_BROKER_URL": broker_url,
            "SHOP_DATA_DIR": directory,
            "SHOP_DEFAULT_QUEUE": queues.default,
            "SHOP_URGENT_QUEUE": queues.urgent,
            "SHOP_RUSH_QUEUE": queues.rush,
        }
        household = Household(data, PROJECT, environment)
        opened = False
        try:
            with household:
                say.progress("making the databases")
                household.manage("migrate", "--verbosity", "0")
                say.progress("starting the site and the worker")
                site_command = ["manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
                site = household.start("site", [sys.executable, *site_command])
                hands = household.start("worker", worker.arguments(queues.default, queues.urgent))
                address = site.wait_for(r"server at (http://[^\s/]+)/", START_UP)[1]
                hands.wait_for(worker.ready, START_UP, worker.hopeless)
                say.progress("")
                opened = True
                described = worker.described(queues.default, queues.urgent)
                yield Shop(household, site, hands, address, queues, broker_url, described, say)
        finally:
            say.progress("")
            if broker and opened:
                forget_queues(household)


def forget_queues(household: Household) -> None:
    """Delete our queues from somebody else's broker, if it is still there."""
    try:
        with household:
            household.manage("forget_queues", timeout=20.0)
    except ProcessFailed as problem:
        click.secho(f"\nThe demo's queues may still be on the broker: {problem}", fg="yellow", err=True)


@dataclass
class Shop:
    """A running shop."""

    household: Household
    site: Child
    worker: Child
    address: str
    queues: Queues
    broker_url: str
    worker_command: str
    say: "Narrator"

    def run(self, timeout: float) -> Account:
        """Place the orders and wait for what must come of them."""
        self.say.facts(
            ("site", f"{self.address}  (process {self.site.pid})"),
            ("worker", f"{self.worker_command}  (process {self.worker.pid})"),
            ("broker", without_password(self.broker_url)),
        )
        started = time.monotonic()
        self.say.heading("Orders over HTTP, and how long each request took")
        customer = Customer(self.address)
        placed = []
        for visit in VISITS:
            placed.append(customer.place_order(visit.name, visit.email, visit.basket, visit.jam_printer))
            self.say.order(visit, placed[-1])
        self.say.remark("(The first send of a process loads Celery and connects; the others show what one costs.)")

        orders: list[dict[str, Any]] = []
        activity: dict[str, Any] = {}
        effects: list[Effect] = []

        def all_there() -> bool:
            nonlocal activity
            orders[:] = [customer.get_json(f"/orders/{each.order}.json") for each in placed]
            activity = customer.get_json("/activity.json")
            effects[:] = effects_of_all(activity, self.worker.owns)
            for visit, order in zip(VISITS, orders, strict=True):
                effects.extend(effects_of_order(visit, order, activity["site_pid"], self.worker.owns, self.queues))
            there = sum(effect.there for effect in effects)
            waited = time.monotonic() - started
            self.say.progress(f"waiting for the receivers: {there} effects after {waited:.1f} s")
            return there == len(effects)

        self.household.wait_until(all_there, timeout)
        self.say.progress("")
        return Account(
            address=self.address,
            broker=without_password(self.broker_url),
            worker=self.worker_command,
            site_pid=activity["site_pid"],
            worker_pid=self.worker.pid,
            visits=VISITS,
            placed=placed,
            orders=orders,
            activity=activity,
            effects=effects,
            seconds=time.monotonic() - started,
        )

    def stay_open(self) -> None:
        """Wait for Ctrl-C, as long as the site and the worker live."""
        try:
            self.say.heading(f"The shop is open at {self.address}/ (Ctrl-C closes it)")
            while True:
                self.household.check()
                time.sleep(0.2)
        except KeyboardInterrupt:
            self.say.heading("Closed.")


class Narrator:
    """Says what is going on: on standard output, or progress alone on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._rewrites = sys.stderr.isatty()
        self._said_at = 0.0

    def heading(self, text: str) -> None:
        """Begin a part."""
        if not self._quiet:
            heading(text)

    def facts(self, *rows: tuple[str, str]) -> None:
        """Say who takes part."""
        if not self._quiet:
            heading("Async Signals: a shop, a worker, and the signals between them")
            facts(rows)

    def order(self, visit: Any, placed: Any) -> None:
        """Say what was ordered."""
        if not self._quiet:
            tell_order(visit, placed)

    def remark(self, text: str) -> None:
        """Explain something."""
        if not self._quiet:
            remark(text)

    def progress(self, text: str) -> None:
        """One line that changes in a terminal; elsewhere a line every few seconds."""
        if self._rewrites:
            click.echo(f"\r\033[K{text}", nl=False, err=True)
        elif text and time.monotonic() - self._said_at > 5:
            click.echo(text, err=True)
            self._said_at = time.monotonic()

    def log(self, child: Child) -> None:
        """Show the end of a child's log."""
        click.echo(f"\nThe end of the {child.name}'s log:\n{child.tail()}", err=True)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":…@", 1)


def fail(problem: str, log: str = "", code: int = 1) -> NoReturn:
    """Say what went wrong and end."""
    click.secho(f"\n{problem}", fg="red", err=True)
    if log:
        click.echo(f"\nThe end of its log:\n{log}", err=True)
    sys.exit(code)


def _leave(signum: int, frame: object) -> NoReturn:
    for each in ENDINGS:  # once is enough: from here on everything is being put away
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
