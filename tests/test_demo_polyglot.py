"""The shop with a warehouse in Rust, run as `make demo-polyglot` runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers.peer import prebuilt
from servers.project import Broker

DEMO = Path(__file__).parents[1] / "examples" / "polyglot" / "demo.py"
#: The first run builds the warehouse and everything that it needs.
BUILDING = 900

pytestmark = pytest.mark.timeout(BUILDING + 120)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    built = prebuilt("warehouse")
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        env={**os.environ, **({"WAREHOUSE_PROGRAM": built} if built else {})},
        capture_output=True,
        text=True,
        timeout=BUILDING + 90,
        check=False,
    )


def test_a_signal_goes_to_rust_and_back_on_each_broker(broker: Broker) -> None:
    url = broker.fresh_url()
    done = run("--json", "--broker", url)
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads(done.stdout)
    assert account["ok"]
    assert account["missing"] == []
    warehouse = account["processes"]["warehouse"]["pid"]
    assert [parcel["order_id"] for parcel in account["parcels"]] == [order["order"] for order in account["orders"]]
    assert {parcel["packed_by"] for parcel in account["parcels"]} == {warehouse}
    assert {parcel["insured_for"] for parcel in account["parcels"]} == {order["total"] for order in account["orders"]}
    assert broker.queues(url) == {}
    for role in account["processes"].values():
        with pytest.raises(ProcessLookupError):
            os.killpg(role["pid"], 0)  # each led a group of its own, and nobody of it is left


def test_the_account_says_what_ran_where() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "effects are there" in done.stdout
    assert "packed: shop.Order pk=1, which is message" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_what_is_missing_is_named() -> None:
    done = run("--timeout", "0")
    assert done.returncode == 1
    assert re.search(r"order \d+: ", done.stdout), "whatever was not there at once"
    assert "The end of the warehouse's log" in done.stderr
