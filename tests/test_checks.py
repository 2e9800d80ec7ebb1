"""`manage.py check`: it finds what would lose signals, says nothing else, and never raises."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import pytest

from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker
from servers.worker import KINDS, Kind

#: A signal on each of two queues is in the project: celery, the default, and high_priority and unread, by name.
BOTH = "'high_priority', 'unread', 'celery'"


class MakeProject(Protocol):
    def __call__(self, broker: Any, **arguments: Any) -> Project: ...


@dataclass
class Checked:
    """What was said of a project.

    Arguments:
        text: all of it.
        failed: whether it ends a command.
    """

    text: str
    failed: bool

    @property
    def ids(self) -> list[str]:
        """The ids of our messages, in their order."""
        return re.findall(r"\(async_signals\.(\w+)\)", self.text)


def manage(project: Project, *arguments: str) -> Checked:
    """Runs `manage.py`, which checks before it does anything."""
    done = project.python("-m", "manage", *arguments)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return Checked(done.stdout + done.stderr, done.returncode != 0)


@pytest.fixture
def check(make_project: MakeProject, redis_server: RedisServer) -> Any:
    """`check("…settings…", deploy=True)`: the checks of `manage.py check`, in a process of their own."""

    def checked(settings: str = "", *, deploy: bool = False, **options: Any) -> Checked:
        project = make_project(options.pop("broker", redis_server), settings=dedent(settings), **options)
        report = project.run(
            f"""
            from django.core.checks import ERROR, run_checks
            messages = run_checks(include_deployment_checks={deploy})
            result = ["\\n".join(map(str, messages)), any(each.level >= ERROR for each in messages)]
            """
        )
        assert "Traceback" not in report.output, report.output
        return Checked(*report.result)

    return checked


class TestNothingIsSaid:
    @pytest.mark.parametrize("deploy", [False, True])
    def test_of_queues_that_workers_are_told_by_their_flag(self, check: Any, deploy: bool) -> None:
        """As the README has it: `-Q celery,high_priority`, and no `task_queues`."""
        assert check(deploy=deploy).ids == []

    def test_of_a_project_without_celery(self, check: Any) -> None:
        assert check(broker=None).ids == []

    @pytest.mark.parametrize(
        "queues",
        [
            "{'high_priority': {}, 'unread': {'exchange': 'x', 'routing_key': 'y'}, 'celery': {}}",
            f"[Queue(name) for name in ({BOTH})]",
            f"tuple(Queue(name) for name in ({BOTH}))",
            f"{{name: Queue(name) for name in ({BOTH})}}",
            "[Queue('first', alias='high_priority'), Queue('unread'), Queue('celery')]",
            "None",
            "[]",
            "{}",
        ],
    )
    def test_of_task_queues_in_each_form_that_celery_takes(self, check: Any, queues: str) -> None:
        assert check(f"from kombu import Queue\nCELERY_TASK_QUEUES = {queues}").ids == []

    @pytest.mark.parametrize(
        "routes",
        [
            "{'async_signals.propagate': {'queue': 'declared'}}",
            "{'async_signals.propagate': 'declared'}",
            "{'async_signals.*': 'declared'}",
            "[{'async_signals.propagate': {'queue': 'declared'}}]",
            "([(re.compile('async_.*'), {'queue': 'declared'})],)",
            "lambda name, args, kwargs, options, task=None, **_: 'declared'",
            "lambda name, args, kwargs, options, task=None, **_: {'queue': kwargs['tenant']}",
            "lambda name, args, kwargs, options, task=None, **_: exit(1)",
        ],
    )
    def test_of_routes_in_each_form_that_lead_to_a_declared_queue(self, check: Any, routes: str) -> None:
        """And of a router that wants what only a send has."""
        assert (
            check(f"""
            import re
            from kombu import Queue
            CELERY_TASK_QUEUES = [Queue(name) for name in ('declared', 'high_priority', 'unread')]
            CELERY_TASK_ROUTES = {routes}
            """).ids
            == []
        )

    @pytest.mark.parametrize("accepted", ["['application/json']", "{'json', 'pickle'}"])
    def test_of_content_that_holds_json(self, check: Any, accepted: str) -> None:
        assert check(f"CELERY_ACCEPT_CONTENT = {accepted}").ids == []

    def test_of_what_no_worker_reads(self, check: Any) -> None:
        """With `task_always_eager` there is none."""
        assert check("CELERY_TASK_ALWAYS_EAGER = True\nCELERY_ACCEPT_CONTENT = ['yaml']").ids == []

    def test_by_a_worker_that_starts(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        """Its checks add no queue to those that it reads."""
        project = make_project(redis_server)
        report = project.run(
            """
            from django.core.checks import run_checks
            import proj
            before = list(proj.celery_app.amqp.queues)
            messages = run_checks()
            result = [before == list(proj.celery_app.amqp.queues), [str(each) for each in messages]]
            """
        )
        assert report.result == [True, []]


class TestQueues:
    @pytest.mark.parametrize("queues", ["{'celery': {}}", "[Queue('celery')]"])
    def test_one_that_no_worker_of_these_settings_reads(self, check: Any, queues: str) -> None:
        checked = check(f"from kombu import Queue\nCELERY_TASK_QUEUES = {queues}")
        assert checked.ids == ["W002", "W002"]
        assert "'high_priority' of signal shopapp.signals.routed_signal" in checked.text
        assert "-Q high_priority" in checked.text
        assert not checked.failed

    def test_one_that_may_not_be_made(self, check: Any) -> None:
        checked = check("CELERY_TASK_CREATE_MISSING_QUEUES = False")
        assert checked.ids == ["W002", "W002"]
        assert "cannot be sent" in checked.text

    @pytest.mark.parametrize(
        "routes",
        [
            "{'async_signals.*': {'queue': 'astray'}}",
            "lambda name, args, kwargs, options, task=None, **_: {'queue': 'astray'}",
        ],
    )
    def test_one_that_a_route_leads_to(self, check: Any, routes: str) -> None:
        checked = check(f"""
            from kombu import Queue
            CELERY_TASK_QUEUES = [Queue(name) for name in ({BOTH})]
            CELERY_TASK_ROUTES = {routes}
            """)
        assert checked.ids == ["W002"]
        assert "'astray'" in checked.text
        assert re.search(r"and \d+ more", checked.text)


@pytest.mark.parametrize("kind", KINDS)
def test_workers_start_with_a_mapping_of_queues(
    make_project: MakeProject, redis_server: RedisServer, kind: Kind
) -> None:
    """As edx-platform has it. A worker checks as it starts."""
    project = make_project(redis_server, settings="CELERY_TASK_QUEUES = {'celery': {}, 'high_priority': {}, 'low': {}}")
    project.send("routed_signal")
    with project.worker(kind=kind):
        project.effects.wait_for(1, "routed_first")


class TestWhatWouldLoseSignals:
    @pytest.mark.parametrize("accepted", ["['yaml']", "('pickle', 'msgpack')", "[]", "None"])
    def test_content_without_json(self, check: Any, accepted: str) -> None:
        checked = check(f"CELERY_ACCEPT_CONTENT = {accepted}")
        assert checked.ids == ["E005"]
        assert checked.failed

    @pytest.mark.parametrize(
        "callback", ["'nowhere.at.all'", "'shopapp.models.Nobody'", "'shopapp.signals.my_signal'", "5"]
    )
    def test_an_on_failure_that_cannot_be_called(self, check: Any, callback: str) -> None:
        checked = check(f"ASYNC_SIGNALS = {{'on_failure': {callback}}}")
        assert checked.ids == ["E006"]
        assert checked.failed

    def test_an_option_of_the_broker_that_only_celerys_producer_honours(self, check: Any) -> None:
        checked = check("CELERY_BROKER_LOGIN_METHOD = 'EXTERNAL'")
        assert checked.ids == ["W003"]
        for word in ("EXTERNAL", "confirmation", "queue"):
            assert word in checked.text

    def test_no_celery_where_it_is_deployed(self, check: Any) -> None:
        checked = check(deploy=True, broker=None)
        assert checked.ids == ["W001"]

    def test_receivers_that_run_where_it_is_deployed(self, check: Any) -> None:
        checked = check("CELERY_TASK_ALWAYS_EAGER = True", deploy=True)
        assert checked.ids == ["W001"]
        assert "task_always_eager" in checked.text

    def test_another_distribution_of_the_same_modules(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        project = make_project(redis_server)
        other = project.folder / "async_signals-1.0.dist-info"
        other.mkdir()
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: async-signals\nVersion: 1.0\n")
        assert manage(project, "check").ids == ["W005"]


class TestDeadLetters:
    @pytest.mark.parametrize("name", ["'celery'", "'{queue}'"])
    def test_a_queue_that_is_read_again(self, check: Any, name: str) -> None:
        checked = check(f"ASYNC_SIGNALS = {{'dead_letters': {name}}}")
        assert set(checked.ids) == {"E007"}
        assert checked.failed
        assert "for ever" in checked.text

    def test_it_is_read_again_for_ever(self, make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
        project = make_project(sqlite_broker, settings="ASYNC_SIGNALS = {'dead_letters': 'celery'}")
        project.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with project.our_worker() as worker:
            for _ in range(5):
                worker.process.wait_for("is dead-lettered to celery", since=len(worker.output.splitlines()))


class TestPriorities:
    @pytest.fixture
    def project(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> Any:
        def sent(settings: str) -> tuple[list[str], list[str]]:
            """What is said of two signals, and the order in which RabbitMQ hands them out."""
            project = make_project(rabbitmq_server, settings=settings)
            (project.folder / "urgent.py").write_text(
                dedent("""
                from async_signals import AsyncSignal
                calm, urgent = AsyncSignal(priority=1), AsyncSignal(priority=9)
                """)
            )
            report = project.run(
                """
                from django.core.checks import run_checks
                from urgent import calm, urgent
                result = [str(each) for each in run_checks()]
                calm.send(None)
                urgent.send(None)
                """
            )
            return report.result, [json.loads(message.body)[0][0] for message in project.take("celery")]

        return sent

    def test_of_a_queue_that_has_none(self, project: Any) -> None:
        messages, order = project("")
        assert order == ["urgent.calm", "urgent.urgent"], "first come, first served"
        assert len(messages) == 1
        assert "async_signals.W012" in messages[0]
        assert "urgent.calm, urgent.urgent" in messages[0]

    @pytest.mark.parametrize(
        "settings",
        [
            "CELERY_TASK_QUEUE_MAX_PRIORITY = 10",
            f"from kombu import Queue\nCELERY_TASK_QUEUES = [Queue(name, max_priority=10) for name in ({BOTH})]",
        ],
    )
    def test_of_a_queue_that_has_them(self, project: Any, settings: str) -> None:
        messages, order = project(settings)
        assert order == ["urgent.urgent", "urgent.calm"]
        assert messages == []


class TestTheTableOfOnce:
    @pytest.fixture
    def project(self, make_project: MakeProject, redis_server: RedisServer) -> Project:
        return make_project(redis_server)

    def test_it_is_looked_for_where_a_database_may_be_asked(self, project: Project) -> None:
        assert manage(project, "check", "--database", "other").ids == []
        checked = manage(project, "check", "--database", "default")
        assert checked.ids == ["W004"]
        assert "shopapp.signals.kept_once" in checked.text
        # The one command that says nothing of it: it makes the table.
        assert manage(project, "migrate").ids == []
        assert manage(project, "check", "--database", "default").ids == []

    @pytest.mark.parametrize("arguments", [(), ("--tag", "async_signals")])
    def test_nothing_is_connected_to_otherwise(self, project: Project, arguments: tuple[str, ...]) -> None:
        assert manage(project, "check", *arguments).ids == []
        assert not (project.folder / "default.sqlite3").exists()


def test_the_page_has_every_message() -> None:
    root = Path(__file__).parents[1]
    sources = (path.read_text() for path in (root / "python/async_signals/checks").glob("*.py"))
    there = {found for source in sources for found in re.findall(r'id="async_signals\.(\w+)"', source)}
    told = re.findall(r"^\| `async_signals\.(\w+)` \|", (root / "docs/checks.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(there)


class TestAnything:
    """Whatever the settings hold, commands end with a message and not with a traceback."""

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ("CELERY_TASK_QUEUES = 5", "E004"),
            ("CELERY_TASK_QUEUES = ['high', 'low']", "E004"),
            ("CELERY_TASK_QUEUES = {'high': 5}", "E004"),
            ("CELERY_TASK_ROUTES = 5", None),
            ("CELERY_TASK_ROUTES = 'nowhere.Router'", "E004"),
            ("CELERY_TASK_ROUTES = [[5]]", "E004"),
            ("CELERY_ACCEPT_CONTENT = ['nothing']", "E004"),
            ("CELERY_ACCEPT_CONTENT = 5", "E004"),
            ("CELERY_BROKER_URL = 'gopher://localhost'", "E002"),
            ("CELERY_BROKER_USE_SSL = {5: 5}", "E003"),
            ("ASYNC_SIGNALS = 5", "E001"),
            ("ASYNC_SIGNALS = {'app': 'nowhere.app'}", "E001"),
            ("ASYNC_SIGNALS = {'app': 'shopapp.signals.my_signal'}", "E001"),
            ("ASYNC_SIGNALS = {'app': 5}", "E001"),
            ("ASYNC_SIGNALS = {'dead_letters': '{name}.dead'}", "E001"),
            ("ASYNC_SIGNALS = {'dead_letters': '{queue}}'}", "E001"),
            ("ASYNC_SIGNALS = {'dead_letters': ''}", "E001"),
        ],
    )
    def test_of_settings(self, check: Any, settings: str, said: str | None) -> None:
        checked = check(settings, deploy=True)
        assert checked.ids == ([said] if said else [])
        assert checked.failed == (said is not None)

    def test_of_a_command_that_reads_them(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        checked = manage(make_project(redis_server, settings="ASYNC_SIGNALS = 5"), "check")
        assert (checked.ids, checked.failed) == (["E001"], True)

    def test_of_a_fault_in_a_check_itself(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server)
        report = project.run(
            """
            from async_signals import checks, names
            names.known = lambda: 1 / 0
            from django.core.checks import run_checks
            result = [each.id for each in run_checks(databases=["default"])]
            """
        )
        assert set(report.result) == {"async_signals.W006"}
