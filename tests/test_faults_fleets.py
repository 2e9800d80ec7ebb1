"""Several workers on one queue that are killed with -9 at random under load.

Ours lose nothing. A stock worker among them is killed too: it loses nothing on RabbitMQ, and elsewhere no more than
kombu has taken without a record that anybody could find.

ASYNC_SIGNALS_SOAK=60 lets it go on for a minute each.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Iterable

import pytest

from checker.fleet import fleet
from checker.guarantees import TAKEN_ALONG
from checker.trial import QUEUE, MakeTrial, Trial
from conftest import BROKERS
from servers.eventually import eventually
from servers.project import Broker
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker
from servers.worker import Kind

#: For how many seconds workers die.
LASTS = float(os.environ.get("ASYNC_SIGNALS_SOAK", "12"))
#: How many sends a second they are under.
RATE = 150.0
#: How soon the survivors must have done what is left, in seconds.
DRAINED = 90.0
#: After how many seconds what a stock worker held comes back on Redis.
VISIBILITY_TIMEOUT = 3
MORE = {"redis": f'CELERY_BROKER_TRANSPORT_OPTIONS = {{"visibility_timeout": {VISIBILITY_TIMEOUT}}}'}

pytestmark = [pytest.mark.timeout(240 + 2 * LASTS), pytest.mark.xdist_group("load")]


@pytest.mark.parametrize("kinds", [("ours", "ours"), ("stock", "ours")], ids=["ours", "mixed"])
@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_a_fleet_killed_at_random(
    make_trial: MakeTrial, broker: Broker, kinds: tuple[Kind, ...], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["broker"]
    title = f"a fleet of {' and '.join(kinds)} on {name}, killed at random"
    trial = make_trial(broker, title, more=MORE.get(name, ""), max_deliveries=50)
    url = trial.project.url
    assert url is not None
    seed = time.time_ns()
    with contextlib.ExitStack() as following, fleet(trial, kinds, seed) as workers:
        recorded = following.enter_context(broker.recorded(url)) if isinstance(broker, RedisServer) else set()
        with trial.load(rate=RATE):
            workers.kill_at_random(LASTS)
        at_rest(trial, broker, url)
    killed = ", ".join(f"{count} {kind}" for kind, count in sorted(workers.killed.items()))
    may_lose = workers.killed["stock"] * TAKEN_ALONG[name]
    verdict = trial.verdict(killed=killed, seed=seed, **{"may lose": may_lose})
    verdict.require(lost_at_most=may_lose)
    assert not verdict.dead
    if isinstance(broker, RedisServer):
        known = tokens(recorded)
        assert len(known) >= verdict.outcomes["ok"] - may_lose, "it is not seen who takes what"
        assert not known & set(verdict.lost), "somebody had written down that it was taken"
    if isinstance(broker, SqliteBroker):
        assert set(verdict.lost) <= tokens(broker.taken_for_good(url)), "ours had taken it"


def at_rest(trial: Trial, broker: Broker, url: str) -> None:
    """Waits until all is done, or until nothing waits and nobody holds anything: what has not run then is lost."""
    if isinstance(broker, RabbitmqServer):
        trial.drained(timeout=DRAINED)
        return
    assert isinstance(broker, RedisServer | SqliteBroker)
    eventually(
        lambda: QUEUE not in trial.project.queues() and not broker.held(url),
        lambda: f"rest; there are {trial.project.queues()}, and held are {sorted(tokens(broker.held(url)))}",
        timeout=DRAINED,
    )


def tokens(bodies: Iterable[str]) -> set[str]:
    """What the judge follows messages by, out of their bodies as kombu writes them."""
    return {json.loads(base64.b64decode(body))[1]["token"] for body in bodies}
