"""Private servers for the session, and a fresh project for each test."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
import pytest

from checker.trial import MakeTrial, Trial, settings
from servers import peer as rust_peer
from servers import postgresql as postgresql_server
from servers import rabbitmq, redis
from servers.postgresql import PostgresqlServer
from servers.project import Broker, Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker
from servers.worker import KINDS, Kind

# A project of its own, whose tests are run in processes of their own.
collect_ignore = ["project"]

BROKERS = ("redis", "rabbitmq", "sqlite")
MakeProject = Callable[..., Project]


def need(program: str | None, name: str) -> None:
    """A server that is not installed is an error in continuous integration, and a skip elsewhere."""
    if program is None:
        word = f"{name} is not installed" + ("" if name == "cargo" else ": `make servers` installs it")
        if os.environ.get("CI"):
            pytest.fail(word)
        pytest.skip(word)


#: What the tests of this process run with; servers are added as they are started.
VERSIONS = {
    "Python": platform.python_version(),
    **{package: metadata.version(package) for package in ("Django", "Celery")},
}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(redis.program(), "redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    VERSIONS["redis"] = server.version()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitmqServer]:
    need(rabbitmq.program(), "rabbitmq-server")
    server = RabbitmqServer(tmp_path_factory.mktemp("rabbitmq"))
    VERSIONS["rabbitmq"] = server.version()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    need(postgresql_server.program(), "postgresql")
    server = PostgresqlServer()
    VERSIONS["postgresql"] = server.version()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sqlite_broker(tmp_path_factory: pytest.TempPathFactory) -> SqliteBroker:
    broker = SqliteBroker(tmp_path_factory.mktemp("sqlite"))
    VERSIONS["sqlite"] = broker.version()
    return broker


@pytest.fixture(scope="session")
def peer() -> rust_peer.Peer:
    need(rust_peer.buildable(), "cargo")
    return rust_peer.Peer()


#: What a stock worker of Celery 5.4 finishes on SQLite as it is stopped, it gives back all the same.
GIVEN_BACK = pytest.mark.xfail(
    celery.VERSION < (5, 5),
    raises=AssertionError,
    strict=False,  # it is a race
    reason="Celery 5.4 gives back to SQLite what it finishes as it stops",
)
#: Tests that look into the queue of a worker that was stopped as soon as its last receiver had run.
STOPPING = {
    "test_a_receiver_that_is_gone_is_dead_lettered",
    "test_a_signal_waits_while_others_run_and_goes_on_when_it_is_resumed",
    "test_a_signal_without_receivers_is_done_with_a_warning",
    "test_a_stop_waits_for_a_task_that_was_acknowledged_before_it_ran",
    "test_a_worker_of_another_queue_leaves_it",
    "test_each_is_logged_by_its_name_and_none_stops_the_others",
    "test_it_finishes_what_runs_and_leaves_the_rest",
    "test_only_the_receiver_that_failed_is_tried_again_and_then_dead_lettered",
    "test_raise_dead_letters_it_skip_calls_nobody_and_none_passes_none",
    "test_the_signals_policy_is_for_receivers_that_do_not_say",
    "test_the_worker_propagates_it_to_every_listener",
    "test_what_kills_its_process_is_dead_lettered_after_a_bounded_number_of_deliveries",
}

_NO_PARAMETERS = SimpleNamespace(params={})
FIXTURES = {"redis": "redis_server", "rabbitmq": "rabbitmq_server", "sqlite": "sqlite_broker"}


def parameters(item: pytest.Item) -> dict[str, Any]:
    """What a test is parametrised with."""
    chosen: dict[str, Any] = getattr(item, "callspec", _NO_PARAMETERS).params
    return chosen


@pytest.fixture(autouse=True)
def _against(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """For the table of what ran against what: versions, and the servers that a test asks for.

    With each test, because what is recorded of a whole session does not come through from processes of pytest-xdist.
    """
    for name, version in VERSIONS.items():
        record_property(name, version)
    chosen = [value for value in parameters(request.node).values() if isinstance(value, str)]
    for kind, fixture in FIXTURES.items():
        if fixture in request.fixturenames or kind in chosen:
            record_property("broker", kind)


#: What a module makes once for several tests: a test that asks for one of these runs where the others run.
LASTING = {"make_lasting_project", "make_lasting_trial", "guarded", "impatient", "source"}
#: The parameters for which it is made anew, so that the tests of one need not wait for those of another.
MADE_FOR = ("broker", "guarded")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share something stay together when pytest-xdist spreads them over processes."""
    for item in items:
        chosen = parameters(item)
        name = getattr(item, "originalname", item.name)
        if name in STOPPING and "sqlite" in chosen.values() and "ours" not in chosen.values():
            item.add_marker(GIVEN_BACK)
        if LASTING & set(getattr(item, "fixturenames", ())) and not item.get_closest_marker("xdist_group"):
            group = [item.path.stem, *(str(chosen[name]) for name in MADE_FOR if name in chosen)]
            item.add_marker(pytest.mark.xdist_group("-".join(group)))


@pytest.fixture(scope="session", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the three brokers in turn."""
    server: Broker = request.getfixturevalue(FIXTURES[request.param])
    return server


def projects(folder: Path) -> Iterator[MakeProject]:
    """Makes projects in folders of their own, and closes them at the end."""
    made: list[Project] = []

    def make(broker: Broker | None, **arguments: Any) -> Project:
        place = folder / f"project-{len(made) + 1}"
        place.mkdir()
        url = arguments.pop("url", broker.fresh_url() if broker else None)
        made.append(Project(place, url, broker, **arguments))
        return made[-1]

    yield make
    for project in made:
        project.close()


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[MakeProject]:
    """`make_project(broker, installed=…, settings="…")`: a project on a place of its own on the broker."""
    yield from projects(tmp_path)


@pytest.fixture(scope="module")
def make_lasting_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeProject]:
    """The same, for projects that all tests of a module share."""
    yield from projects(tmp_path_factory.mktemp("projects"))


@pytest.fixture
def project(make_project: MakeProject, broker: Broker) -> Project:
    """A project on each of the brokers in turn, without a worker."""
    return make_project(broker)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database in this process, with the tables of the models in `values.py`."""
    import values

    with values.database() as alias:
        yield alias


@pytest.fixture(scope="module", params=KINDS)
def worker_kind(request: pytest.FixtureRequest) -> Kind:
    """Each of the two workers in turn: Celery's own, and ours."""
    kind: Kind = request.param
    return kind


def trials(make: MakeProject) -> Iterator[MakeTrial]:
    """Makes trials of faults in projects that `make` makes, and closes them at the end."""
    made: list[Trial] = []

    def make_trial(broker: Broker, title: str, *apps: str, more: str = "", **options: Any) -> Trial:
        made.append(Trial(make(broker, settings=settings(*apps, more=more, **options)), title))
        return made[-1]

    yield make_trial
    for trial in made:
        trial.close()


@pytest.fixture
def make_trial(make_project: MakeProject) -> Iterator[MakeTrial]:
    """`make_trial(broker, title, app, …, more="…", max_deliveries=…)`: a project of its own to be judged."""
    yield from trials(make_project)


@pytest.fixture(scope="module")
def make_lasting_trial(make_lasting_project: MakeProject) -> Iterator[MakeTrial]:
    """The same, for trials that all tests of a module share."""
    yield from trials(make_lasting_project)


@pytest.fixture
def embedded(make_project: MakeProject, sqlite_broker: SqliteBroker) -> Project:
    """A project on the embedded broker, for what is the same on all of them."""
    return make_project(sqlite_broker)
