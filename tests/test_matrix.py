"""Who understands whom: each sender with each receiver on each broker, with each type of value and of sender.

Senders are Django over the native publisher, Django with listeners on Celery's own publishing, and a Rust program.
Receivers are a stock Celery worker, ours, and a Rust program's. The Rust program is in tests/peer; both sides have the
same values by heart, and describe what they send and get in the same words.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import MakeProject
from servers.effects import Effect
from servers.eventually import eventually
from servers.peer import Peer
from servers.project import Broker, Project
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker

SENDERS = ("django", "celery", "rust")
RECEIVERS = ("stock", "ours", "rust")
#: All three workers read it, beside a queue of each one's own.
SHARED = "shared"
#: The Rust worker and our Python one read it.
PAIRED = "paired"
#: What JSON has words for.
PLAIN = [
    *("nothing", "yes", "no", "zero", "negative", "most", "fraction", "whole", "tiny", "huge", "minus_zero"),
    *("empty", "text", "items", "no_items", "table", "nested"),
]
SETTINGS = 'CELERY_IMPORTS = ("shopapp.matrix",)'

SEND_FROM_DJANGO = """
    from celery.signals import before_task_publish
    from shopapp import matrix
    from shopapp.models import Order

    Order.objects.create(pk=5, reference="row five")
    queues = ("stock", "ours", "rust")
    matrix.send_all("django", queues)

    @before_task_publish.connect
    def listens(sender, headers, **kwargs):
        headers["listened"] = True

    matrix.send_all("celery", queues)
    before_task_publish.disconnect(listens)

    import proj
    for queue in queues:
        arguments = ("shopapp.matrix.plain", "send_task")
        proj.celery_app.send_task("async_signals.propagate", arguments, matrix.PLAIN, queue=queue)
    result = matrix.described()
    """


@dataclass
class Matrix:
    """Three workers on one broker, to each of which each sender has sent everything."""

    project: Project
    peer: Peer
    #: What Django's values are, and what Rust's are.
    django_says: dict[str, Any]
    rust_says: dict[str, Any]

    def ran(self, receiver: str, queue: str) -> list[Effect]:
        return [effect for effect in self.project.effects.seen(receiver) if effect["arguments"]["queue"] == queue]

    def wait(self, receiver: str, sender: str, queue: str, count: int) -> list[dict[str, Any]]:
        """Waits until a receiver ran so often for a sender, and returns what it was given."""

        def found() -> list[dict[str, Any]]:
            return [effect["arguments"] for effect in self.ran(receiver, queue) if effect["sender"] == sender]

        what = f"{count} of {receiver} for {sender} in {queue}"
        self.project.effects.wait_until(lambda: len(found()) >= count, what)
        return found()


@pytest.fixture(scope="module")
def matrix(broker: Broker, make_lasting_project: MakeProject, peer: Peer) -> Iterator[Matrix]:
    project = make_lasting_project(broker, settings=SETTINGS)
    project.migrate()
    django_says = project.run(SEND_FROM_DJANGO).result
    rust_says = peer.send(project, *RECEIVERS)
    with contextlib.ExitStack() as workers:
        workers.enter_context(peer.worker(project, ["rust", SHARED, PAIRED]))
        workers.enter_context(project.worker(["stock", SHARED], kind="stock", env={"WORKER": "stock"}))
        workers.enter_context(project.worker(["ours", SHARED, PAIRED], kind="ours", env={"WORKER": "ours"}))
        yield Matrix(project, peer, django_says, rust_says)


def test_both_sides_mean_the_same_values(matrix: Matrix) -> None:
    assert matrix.rust_says == matrix.django_says
    kinds = {value[0] for value in matrix.django_says.values()}
    plain = {"NoneType", "bool", "int", "float", "str", "list", "dict", "tuple", "set", "frozenset", "bytes"}
    assert kinds == plain | {"datetime", "date", "time", "timedelta", "Decimal", "UUID", "enum", "dataclass", "row"}


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("sender", SENDERS)
class TestEachWithEach:
    def test_every_value_arrives_as_it_was_sent(self, matrix: Matrix, sender: str, receiver: str) -> None:
        told = matrix.wait("told", sender, receiver, len(matrix.django_says))
        assert {effect["name"]: effect["value"] for effect in told} == matrix.django_says
        assert len(told) == len(matrix.django_says), "each once"
        assert {effect["worker"] for effect in told} == {receiver}
        if receiver != "rust":
            [fetched] = matrix.wait("fetched", sender, receiver, 1)
            assert fetched["reference"] == "row five", "a model's instance comes from the database"

    def test_receivers_hear_those_senders_that_they_ask_for(self, matrix: Matrix, sender: str, receiver: str) -> None:
        kinds = ["text", "number", "boolean", "class", "model", "row", "member"]
        expected = Counter([(kind, kind) for kind in kinds] + [("anybody", kind) for kind in ["anybody", *kinds]])
        heard = matrix.wait("hears", sender, receiver, expected.total())
        assert Counter((effect["wanted"], effect["kind"]) for effect in heard) == expected
        assert all(effect["same"] for effect in heard), "the sender is what it was, type included"

    def test_only_the_receiver_that_failed_is_tried_again(self, matrix: Matrix, sender: str, receiver: str) -> None:
        tries = matrix.wait("shaky", sender, receiver, 2)
        assert [effect["attempt"] for effect in tries] == [1, 2]
        for neighbour in ("steady", "steady_too"):
            assert [effect["attempt"] for effect in matrix.wait(neighbour, sender, receiver, 1)] == [1]


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_task_that_celery_sends_by_its_name_is_a_signal_too(matrix: Matrix, receiver: str) -> None:
    """As a program does that has Celery and not us: nothing in the message is ours but the task's name."""
    told = matrix.wait("told", "send_task", receiver, len(PLAIN))
    assert {effect["name"]: effect["value"] for effect in told} == {name: matrix.django_says[name] for name in PLAIN}
    assert len(told) == len(PLAIN)


def test_a_retry_is_run_by_whichever_worker_takes_it(matrix: Matrix) -> None:
    """A receiver that succeeds in one language only is tried until a worker of that language has its message.

    And one that the other language does not have is dead-lettered there.
    """
    project, effects, count = matrix.project, matrix.project.effects, 5
    # A stock worker that waits on Redis is given each message as it comes, and leaves none to others while it is idle.
    queue = PAIRED if isinstance(project.broker, RedisServer) else SHARED
    effects.clear()
    matrix.peer.shake(project, queue, "rust", count)
    project.run(
        f"""
        from shopapp import matrix
        for number in range({count}):
            matrix.shaky.options(queue="{queue}").send("django", number=number, fails="python")
        matrix.one_sided.options(queue="{queue}").send("django")
        """
    )
    for sender, here in (("rust", {"stock", "ours"}), ("django", {"rust"})):
        for number in range(count):

            def tries(sender: str = sender, number: int = number) -> list[dict[str, Any]]:
                seen = [effect for effect in matrix.ran("shaky", queue) if effect["sender"] == sender]
                return [effect["arguments"] for effect in seen if effect["arguments"]["number"] == number]

            def succeeded(tries: Any = tries, here: set[str] = here) -> bool:
                return any(effect["worker"] in here for effect in tries())

            effects.wait_until(succeeded, f"signal {number} of {sender} to reach {here}")
            assert [effect["attempt"] for effect in tries()] == [*range(1, len(tries()) + 1)]
            assert [effect["worker"] in here for effect in tries()] == [False] * (len(tries()) - 1) + [True]
    for neighbour in ("steady", "steady_too"):
        ran = Counter((effect["sender"], effect["arguments"]["number"]) for effect in matrix.ran(neighbour, queue))
        assert set(ran.values()) == {1}
        assert ran.total() == 2 * count

    eventually(lambda: project.queues().get(f"{queue}.dead") == 2, "the two that the other language does not know")
    names = []
    for dead in project.take(f"{queue}.dead"):
        ours = dead.headers["async_signals"]
        assert ours["parked"]["kind"] == "UnknownReceiver"
        names += ours["receivers"]
    assert set(names) <= {"matrix.only_in_rust", "matrix.only_in_python"}


def test_three_workers_share_a_queue_and_each_signal_runs_once(matrix: Matrix) -> None:
    project, effects = matrix.project, matrix.project.effects
    effects.clear()
    project.run(
        f"""
        from shopapp import matrix
        for number in range(150):
            matrix.counted.options(queue="{SHARED}").send("django", number=number)
        """
    )
    matrix.peer.count(project, SHARED, range(150, 300))
    sent = 300
    effects.wait_for(sent, "counts")

    def took_part() -> set[str]:
        return {effect["arguments"]["worker"] for effect in effects.seen("counts")}

    # One of them may be that much faster: it goes on until each has had some.
    while took_part() != set(RECEIVERS) and sent < 6000:
        matrix.peer.count(project, SHARED, range(sent, sent + 100))
        sent += 100
        effects.wait_for(sent, "counts")
    assert took_part() == set(RECEIVERS)
    ran = Counter(effect["arguments"]["number"] for effect in effects.seen("counts"))
    assert ran == Counter(range(sent))
    eventually(lambda: SHARED not in project.queues(), "an empty queue")


WRONG = {
    "a marker of ours that is none": '{"number": {"__type__": "async_signals", "__value__": ["hologram", 1]}}',
    "a marker that nobody knows": '{"number": {"__type__": "shop.money", "__value__": {"amount": 1}}}',
    "another type": '{"number": "five"}',
    "a number with a fraction": '{"number": 1.5}',
    "a name that is missing": '{"nummer": 1}',
}


def test_what_a_rust_receiver_does_not_take_is_dead_lettered_alone(matrix: Matrix) -> None:
    project, effects = matrix.project, matrix.project.effects
    effects.clear()
    ids = []
    for arguments in WRONG.values():
        ids.append(str(uuid.uuid4()))
        body = f'[["shopapp.matrix.counted", null], {arguments}, {{}}]'
        project.put(
            "rust",
            body.encode(),
            {"task": "async_signals.propagate", "id": ids[-1], "lang": "py"},
            correlation_id=ids[-1],
        )
    matrix.peer.count(project, "rust", range(7, 8))
    [effect] = effects.wait_for(1, "counts")
    assert effect["arguments"]["number"] == 7, "what comes behind them runs"
    eventually(lambda: project.queues().get("rust.dead") == len(WRONG), lambda: str(project.queues()))
    dead = project.take("rust.dead")
    assert {message.headers["id"] for message in dead} == set(ids)
    assert {message.headers["async_signals"]["parked"]["kind"] for message in dead} == {"Malformed"}
    assert all("number" in message.headers["async_signals"]["parked"]["reason"] for message in dead)


def test_django_and_rust_write_the_same_bytes(
    make_project: MakeProject, sqlite_broker: SqliteBroker, peer: Peer
) -> None:
    """So that what a type is on the wire does not hang on who sends it."""
    bodies = []
    for by_rust in (False, True):
        project = make_project(sqlite_broker, settings=SETTINGS)
        if by_rust:
            peer.send(project, "bytes")
        else:
            project.run("from shopapp import matrix; matrix.send_all('rust', ['bytes'])")
        # Members of sets and entries of maps come in an order of chance from Rust.
        bodies.append([unordered(json.loads(message.body)) for message in project.take("bytes")])
    django, rust = bodies
    assert len(django) == len(rust) == 11
    assert django == rust


def unordered(value: Any) -> Any:
    """A value's JSON with its sets and dictionaries in one order."""
    match value:
        case ["set" | "frozenset" | "dict" as kind, list(members)]:
            return [kind, sorted((unordered(member) for member in members), key=json.dumps)]
        case list():
            return [unordered(item) for item in value]
        case dict():
            return {key: unordered(item) for key, item in value.items()}
        case float():
            return value.hex()
        case _:
            return value
