"""Messages whose body is compressed, and our worker."""

from __future__ import annotations

import bz2
import uuid
import zlib

from conftest import MakeProject
from servers.project import Broker, Project


class TestCompression:
    def test_what_the_senders_celery_has_compressed_is_read(self, make_project: MakeProject, broker: Broker) -> None:
        project = make_project(broker, settings="CELERY_TASK_COMPRESSION = 'gzip'")
        placed = "'web', order_id='x' * 10_000"
        project.send("order_placed", placed)
        [message] = project.take("celery")
        assert message.headers["compression"] == "application/x-gzip"
        project.send("order_placed", placed)
        project.run(
            """
            from proj import celery_app as app
            app.send_task("async_signals.propagate", ("shopapp.signals.order_placed", None), {"order_id": 2})
            app.tasks["celery.accumulate"].delay(1, 2)
            """
        )
        with project.our_worker() as worker:
            first, second = project.effects.wait_for(2, "ordered")
            worker.process.wait_for("celery.accumulate")
        assert first["arguments"] == {"order_id": "x" * 10_000}
        assert second["arguments"] == {"order_id": 2}
        assert project.queues() == {}

    def test_what_is_not_read_is_dead_lettered(self, embedded: Project) -> None:
        def headers(compression: str) -> dict[str, object]:
            return {"task": "async_signals.propagate", "id": str(uuid.uuid4()), "compression": compression}

        with embedded.our_worker() as worker:
            embedded.send("my_signal")  # the queue is there
            embedded.effects.wait_for(1, "mine")
            bomb = zlib.compress(b"[" + b" " * (64 << 20))
            embedded.put("celery", bomb, headers("application/x-gzip"))
            worker.process.wait_for("is dead-lettered to celery.dead: its body is more than 33554432 bytes")
            embedded.put("celery", bz2.compress(b"[]"), headers("application/x-bz2"))
            worker.process.wait_for("is dead-lettered to celery.dead: its body is compressed as")
            embedded.put("celery", b"no zlib", headers("application/x-gzip"))
            worker.process.wait_for("is dead-lettered to celery.dead: its body is said to be compressed")
            embedded.send("my_signal")
            embedded.effects.wait_for(2, "mine")
        assert embedded.queues() == {"celery.dead": 3}
