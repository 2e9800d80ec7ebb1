"""What `async-signals worker` says when it cannot start, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Project
from servers.rabbitmq import RabbitmqServer
from servers.redis import RedisServer
from servers.sqlite import SqliteBroker


class TestRefusals:
    @pytest.mark.parametrize(
        ("app", "word"),
        [
            ("nowhere", "there is no module 'nowhere'"),
            ("proj:nothing", "nothing"),
            ("proj.settings:SECRET_KEY", "is no Celery app"),
            ("run_snippet", "cannot be"),
        ],
    )
    def test_an_app_that_is_not_there(self, embedded: Project, app: str, word: str) -> None:
        code, output = embedded.refusal(app=app)
        assert code == 2
        assert word in output

    @pytest.mark.parametrize(
        ("flags", "word"),
        [
            (["--no-such-flag"], "--no-such-flag"),
            (["-P", "gevent"], "--threads"),
            (["-c", "0"], "-c"),
            (["-l", "loud"], "loud"),
        ],
    )
    def test_flags_that_are_not_there(self, embedded: Project, flags: list[str], word: str) -> None:
        code, output = embedded.refusal(*flags)
        assert code == 2
        assert word in output

    def test_no_app_at_all(self, embedded: Project) -> None:
        done = embedded.python("-m", "async_signals", "worker")
        assert done.returncode == 2
        assert "-A" in done.stderr

    @pytest.mark.parametrize(
        ("settings", "flags", "word"),
        [
            ("CELERY_TASK_CREATE_MISSING_QUEUES = False", ["-Q", "typo"], "there is no queue 'typo'"),
            ("CELERY_ACCEPT_CONTENT = ['json', 'pickle']", [], "accept_content"),
            ("CELERY_BROKER_URL = 'memory://'", [], "use `celery worker`"),
            ("CELERY_BROKER_URL = None", [], "set broker_url"),
            ("CELERY_BROKER_READ_URL = 'redis://elsewhere'", [], "use `celery worker`"),
        ],
    )
    def test_settings_that_cannot_be(
        self, make_project: MakeProject, sqlite_broker: SqliteBroker, settings: str, flags: list[str], word: str
    ) -> None:
        code, output = make_project(sqlite_broker, settings=settings).refusal(*flags)
        assert code == 1
        assert word in output
        assert "Traceback" not in output

    @pytest.mark.parametrize(
        ("settings", "tries"),
        [("CELERY_BROKER_CONNECTION_MAX_RETRIES = 3", 3), ("CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = False", 1)],
    )
    def test_a_broker_that_is_not_there(self, make_project: MakeProject, settings: str, tries: int) -> None:
        project = make_project(None, url=f"redis://127.0.0.1:{free_port()}/0", settings=settings)
        code, output = project.refusal("-c", "2")
        assert code == 1
        assert output.count("No connection to the broker") == tries
        assert "Traceback" not in output

    def test_a_wrong_password(self, make_project: MakeProject, tmp_path: Path) -> None:
        server = RedisServer(tmp_path, password="hush")
        try:
            url = server.url(1).replace("hush", "guess")
            code, output = make_project(None, url=url).refusal("-c", "2")
        finally:
            server.stop()
        assert code == 1
        assert output.count("The broker will not have this worker") == 1
        assert "guess" not in output

    def test_a_queue_with_other_arguments(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> None:
        project = make_project(rabbitmq_server)
        with project.our_worker():
            pass
        settings = project.folder / "local_settings.py"
        settings.write_text(
            f"{settings.read_text()}\nfrom kombu import Queue\n"
            "CELERY_TASK_QUEUES = [Queue('celery', queue_arguments={'x-max-length': 5})]\n"
        )
        code, output = project.refusal()
        assert code == 1
        assert "x-max-length" in output
