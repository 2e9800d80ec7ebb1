"""What a worker of ours does whose user may not do everything on RabbitMQ."""

from __future__ import annotations

import pytest

from conftest import MakeProject
from servers.project import Project
from servers.rabbitmq import USER, RabbitmqServer


class TestRights:
    @pytest.fixture
    def limited(self, make_project: MakeProject, rabbitmq_server: RabbitmqServer) -> Project:
        """A project whose user may not declare dead-letter queues."""
        project = make_project(rabbitmq_server)
        self.permit(project, r"^(?!.*\.dead$).*$")
        return project

    def permit(self, project: Project, configure: str) -> None:
        assert project.url is not None
        assert isinstance(project.broker, RabbitmqServer)
        vhost = project.broker.vhost(project.url)
        rights = {"configure": configure, "write": ".*", "read": ".*"}
        project.broker.manage("PUT", f"permissions/{vhost}/{USER}", rights)

    def test_a_dead_letter_queue_that_may_not_be_declared(self, limited: Project) -> None:
        """It says so, waits, and runs what it can; once the right is there, the message is dead-lettered."""
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker() as worker:
            said = worker.process.wait_for("could not be put into celery.dead, which is tried again")
            assert "celery.dead" in said
            assert "permission to configure" in said
            assert USER in said
            limited.send("my_signal")
            limited.effects.wait_for(1, "mine")
            assert limited.broker is not None
            assert limited.queues() == {}, "the worker has it, and nobody else"
            self.permit(limited, ".*")
            worker.process.wait_for("is dead-lettered to celery.dead", timeout=60)
        assert limited.queues() == {"celery.dead": 1}

    def test_what_could_not_be_dead_lettered_goes_back(self, limited: Project) -> None:
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker(options=["--stop-timeout", "0.5"]) as worker:
            worker.process.wait_for("could not be put into celery.dead, which is tried again")
            worker.stop()
        assert limited.queues() == {"celery": 1}

    def test_one_that_somebody_else_has_declared(self, limited: Project) -> None:
        self.permit(limited, ".*")
        limited.run(
            """
            from kombu import Queue
            from proj.celery import app
            with app.connection_for_write() as connection, connection.channel() as channel:
                Queue("celery.dead", channel=channel).declare()
            """
        )
        self.permit(limited, r"^(?!.*\.dead$).*$")
        limited.run("from async_signals import AsyncSignal; AsyncSignal(name='nobody.knows').send('web')")
        with limited.our_worker() as worker:
            worker.process.wait_for("is dead-lettered to celery.dead")
        assert limited.queues() == {"celery.dead": 1}
