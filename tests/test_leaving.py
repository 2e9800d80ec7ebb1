"""The ways out, step by step as docs/migrating.md has them: to Celery's own worker, and to Django's signals."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from conftest import FIXTURES, MakeProject
from servers.eventually import eventually
from servers.project import Broker, Project
from servers.sqlite import SqliteBroker
from servers.worker import KINDS, Kind

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"


def steps(heading: str, language: str) -> list[str]:
    """The code of a section that is of one language, in its order."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [
        dedent(text) for text in re.findall(rf"^   ```{language}\n(.*?)^   ```$", section, re.MULTILINE | re.DOTALL)
    ]


def run(project: Project, command: str) -> str:
    """Runs a line of the page's shell."""
    program, *arguments = command.split()
    if program == "python":
        return project.manage(*arguments[1:])
    assert program == "async-signals"
    done = project.python("-m", "async_signals", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["redis", "sqlite"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """One of each kind: a server, and the embedded one."""
    server: Broker = request.getfixturevalue(FIXTURES[request.param])
    return server


class TestCelerysOwnWorker:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_goes_on_with_what_the_other_leaves(
        self, make_project: MakeProject, broker: Broker, kind: Kind
    ) -> None:
        """From ours to Celery's, and back."""
        other = KINDS[kind == KINDS[0]]
        started, look = steps("Back to Celery's own worker", "sh")
        _, _, queues = started.partition("-Q ")
        read = queues.split()[0].split(",")
        project = make_project(broker, settings="INSTALLED_APPS = [*INSTALLED_APPS, 'leaving']")
        app = project.folder / "leaving"
        app.mkdir()
        (app / "__init__.py").write_text("")
        (app / "models.py").write_text(RETRIED)
        project.migrate()
        # What waits for its time is given back when that is over, at the latest.
        stop = ["--stop-timeout", "2"] if other == "ours" else []
        with project.worker(read, kind=other, options=stop) as worker:
            project.run(
                """
                from leaving.models import retried
                from shopapp.signals import kept_once, my_signal
                from async_signals import AsyncSignal
                retried.send("web")
                my_signal.options(countdown=8).send("web", waits=True)
                kept_once.options(task_id="0d6b6c5e-6bd6-4b94-8b3f-3f4f2ba38f0b").send("web")
                AsyncSignal(name="nobody.knows").send("web")
                """
            )
            project.effects.wait_for(1, "always_fails")
            project.effects.wait_for(2)  # once
            worker.process.wait_for("is dead-lettered to celery.dead")
            worker.stop()
        assert project.effects.seen("mine") == [], "its time has not come"
        project.run(
            "from shopapp.signals import kept_once\n"
            "kept_once.options(task_id='0d6b6c5e-6bd6-4b94-8b3f-3f4f2ba38f0b').send('web')"
        )
        with project.worker(read, kind=kind):
            project.effects.wait_for(3, "always_fails")
            project.effects.wait_for(1, "mine")
            assert "nobody.knows" in run(project, look)
        assert [effect["arguments"]["attempt"] for effect in project.effects.seen("always_fails")] == [1, 2, 3]
        assert len(project.effects.seen("writes_once")) == 1


RETRIED = """
from django.dispatch import receiver
from async_signals import AsyncSignal, current_delivery
from shopapp.effects import record

retried = AsyncSignal()


@receiver(retried, retry={"max": 2, "base": 3, "factor": 1, "jitter": False})
def always_fails(sender, **kwargs):
    record("always_fails", sender, attempt=current_delivery().attempt)
    raise ConnectionError


@receiver(retried)
def runs_at_once(sender, **kwargs):
    record("runs_at_once", sender)
"""

MODELS = """
from django.db import models


class Invoice(models.Model):
    order_id = models.IntegerField()
"""
APPS = """
from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        from . import receivers
"""


class TestDjangosSignals:
    @pytest.fixture
    def shop(self, make_project: MakeProject, broker: Broker) -> Project:
        project = make_project(broker, settings="INSTALLED_APPS = ['async_signals', 'shop']")
        folder = project.folder / "shop"
        folder.mkdir()
        for name, text in {"__init__": "", "models": MODELS, "apps": APPS}.items():
            (folder / f"{name}.py").write_text(text)
        self.write(project, 0)
        project.manage("migrate", "--run-syncdb", "--verbosity", "0")
        return project

    def write(self, project: Project, which: int) -> list[str]:
        """Writes the page's files, as they are before (0) or after (1); returns their names."""
        found: dict[str, list[str]] = {}
        for text in steps("Back to Django's signals", "python"):
            name = re.match(r"# (shop/\w+\.py)\n", text)
            assert name is not None
            found.setdefault(name[1], []).append(text)
        for path, texts in found.items():
            assert len(texts) == 2
            (project.folder / path).write_text(texts[which])
        return list(found)

    def invoices(self, project: Project) -> list[int]:
        code = "from shop.models import Invoice; result = list(Invoice.objects.values_list('order_id', flat=True))"
        invoices: list[int] = project.run(code).result
        return sorted(invoices)

    def test_step_by_step(self, shop: Project) -> None:
        search, drain, drop = steps("Back to Django's signals", "sh")

        # What was sent before: one that waits, one that waits for its time, and one that could not be run.
        shop.run(
            """
            from shop.orders import place
            from shop.signals import order_placed
            place(1)
            order_placed.options(countdown=2).send(None, order_id=2)
            order_placed.send(None, order_id="no number")
            """
        )
        found = subprocess.run(search, shell=True, cwd=shop.folder / "shop", capture_output=True, text=True, check=True)
        changed = {line.partition(":")[0] for line in found.stdout.splitlines()}
        assert changed == {"./signals.py", "./receivers.py", "./orders.py"}

        # The web's new code runs beside the workers' old one.
        with shop.our_worker() as worker:
            worker.process.wait_for("is dead-lettered to high_priority.dead")
            eventually(lambda: self.invoices(shop) == [1, 2], "what was sent before")
            look, replay = drain.strip().splitlines()
            assert "order_placed" in run(shop, look)
            run(shop, replay)
            worker.process.wait_for("is dead-lettered to high_priority.dead", since=len(worker.output.splitlines()))
        run(shop, "async-signals -A proj dead purge --all --yes")
        assert shop.queues() == {}

        self.write(shop, 1)
        run(shop, drop.strip())
        code = "from django.db import connection; result = connection.introspection.table_names()"
        assert not [name for name in shop.run(code).result if name.startswith("async_signals")]
        settings = shop.folder / "local_settings.py"
        settings.write_text(settings.read_text().replace("['async_signals', 'shop']", "['shop']"))
        report = shop.run(
            """
            import sys
            from shop.orders import place
            place(3)
            place("no number")  # which nobody hears of but the log
            result = [name for name in sys.modules if name.startswith("async_signals")]
            """
        )
        assert report.result == []
        assert self.invoices(shop) == [1, 2, 3]

    def test_what_is_not_drained_is_discarded(self, make_project: MakeProject, sqlite_broker: SqliteBroker) -> None:
        project = make_project(sqlite_broker)
        project.send("my_signal")
        (project.folder / "bare.py").write_text(f"from celery import Celery; app = Celery(broker={project.url!r})\n")
        without = {"DJANGO_SETTINGS_MODULE": ""}
        worker = project.start("-m", "celery", "-A", "bare", "worker", "-P", "solo", env=without)
        try:
            worker.wait_for("Received unregistered task of type 'async_signals.propagate'")
        finally:
            worker.stop()
        assert project.effects.seen() == []
