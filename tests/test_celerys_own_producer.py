"""When the core leaves a message to Celery's own producer, and what holds then: the deadline, and the background."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from conftest import MakeProject
from servers.process import free_port
from servers.project import Broker
from servers.redis import RedisServer

#: How long a deadline of 1 s may take on a machine that is busy with other tests.
GRACE = 3.0
TIMED = """
    import time
    from shopapp.signals import buffered, my_signal
    def timed(send):
        start = time.monotonic()
        try:
            send()
        except Exception as error:
            return getattr(error, "code", repr(error)), time.monotonic() - start
        return None, time.monotonic() - start
    """
IS_NATIVE = """
    from async_signals.routing import plan_for
    from shopapp.signals import my_signal
    result = plan_for(my_signal).template is not None
    """


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestTransportsOfOthers:
    """A message goes where kombu's transport would put it, whatever its scheme says."""

    @pytest.mark.parametrize(
        "settings",
        [
            'CELERY_BROKER_TRANSPORT = "proj.transports:Transport"',
            "from kombu import transport; transport.TRANSPORT_ALIASES['redis'] = 'proj.transports:Transport'",
            "import proj.transports; proj.transports.patch()",
        ],
        ids=["broker_transport", "an alias", "a patch"],
    )
    def test_under_a_scheme_of_kombus(
        self, make_project: MakeProject, redis_server: RedisServer, settings: str
    ) -> None:
        project = make_project(redis_server, settings=settings)
        project.run(
            """
            from shopapp.signals import my_signal, buffered
            from async_signals import flush
            my_signal.send(None)
            buffered.send(None)
            flush()
            """
        )
        assert project.queues() == {"elsewhere.celery": 2}

    def test_a_second_broker_of_a_list(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        """The core carries all of them or none: it could not change to the other in the middle."""
        url = redis_server.fresh_url()
        project = make_project(
            redis_server,
            url=[url, "elsewhere://localhost/0"],
            settings="""
            from kombu import transport
            transport.TRANSPORT_ALIASES["elsewhere"] = "proj.transports:Transport"
            """,
        )
        assert project.run(IS_NATIVE).result is False


class TestOptions:
    """What decides whether one can connect is honoured, or goes Celery's way; it is never dropped."""

    @pytest.mark.parametrize(
        ("settings", "native"),
        [
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"global_keyprefix": "x", "visibility_timeout": 60}', True),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "max_connections": 3}', True),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"client_name": "shop"}', False),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"credential_provider": object()}', False),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"nobody_knows": 1}', False),
            ('CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": "none"}', True),
            ('CELERY_BROKER_USE_SSL = {"ssl_ciphers": "DEFAULT"}', False),
            ('CELERY_BROKER_LOGIN_METHOD = "PLAIN"', True),
            ('CELERY_BROKER_LOGIN_METHOD = "EXTERNAL"', False),
            ('CELERY_BROKER_FAILOVER_STRATEGY = "shuffle"', True),
            ('CELERY_BROKER_URL += ";" + CELERY_BROKER_URL; CELERY_BROKER_FAILOVER_STRATEGY = "shuffle"', False),
            pytest.param(
                'CELERY_BROKER_URL += "?credential_provider=proj.Credentials"',
                False,
                marks=pytest.mark.skipif(kombu.VERSION < (5, 4), reason="kombu 5.3 refuses such a URL itself"),
            ),
            ('CELERY_BROKER_URL += "?ssl_check_hostname=false"', True),
            ('CELERY_BROKER_PASSWORD = "said apart"', False),
            ('CELERY_BROKER_USER = "said apart"', False),
        ],
    )
    def test_redis(self, make_project: MakeProject, settings: str, native: bool) -> None:
        project = make_project(None, url="redis://127.0.0.1:1/0", settings=settings)
        assert project.run(IS_NATIVE).result is native

    @pytest.mark.parametrize(
        ("settings", "native"),
        [
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True, "read_timeout": 3}', True),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"client_properties": {"connection_name": "shop"}}', False),
            ('CELERY_BROKER_TRANSPORT_OPTIONS = {"login_method": "AMQPLAIN"}', False),
            ('CELERY_BROKER_LOGIN_METHOD = "AMQPLAIN"', False),
            ('CELERY_BROKER_USE_SSL = {"ca_certs": "/ca.pem"}', True),
            ('CELERY_BROKER_URL += "?ssl_cert_reqs=none"', False),
            ('CELERY_BROKER_URL += "?heartbeat=10"', True),
            ("CELERY_BROKER_HEARTBEAT = 10", True),
        ],
    )
    def test_rabbitmq(self, make_project: MakeProject, settings: str, native: bool) -> None:
        project = make_project(None, url="amqp://guest:guest@127.0.0.1:1//", settings=settings)
        assert project.run(IS_NATIVE).result is native

    def test_the_check_names_the_option(self, make_project: MakeProject) -> None:
        project = make_project(
            None, url="redis://127.0.0.1:1/0", settings='CELERY_BROKER_TRANSPORT_OPTIONS = {"nobody_knows": 1}'
        )
        told = project.manage("check")
        assert "async_signals.W003" in told
        assert "nobody_knows" in told


WATCHED = {
    "task_send_sent_event": "CELERY_TASK_SEND_SENT_EVENT = True",
    "task_compression": 'CELERY_TASK_COMPRESSION = "gzip"',
    "task_protocol = 1": "CELERY_TASK_PROTOCOL = 1",
    "a callable router": 'CELERY_TASK_ROUTES = ["proj.routes.by_signal"]',
    "a listener": (
        "from celery.signals import before_task_publish as b, after_task_publish as a\n"
        "for signal in (a, b): signal.connect(lambda **_: None, weak=False)"
    ),
    "task_inherit_parent_priority": "CELERY_TASK_INHERIT_PARENT_PRIORITY = True",
    "a patch by wrapt": (
        "import wrapt\n"
        "if 'patched' not in globals():\n"
        "    patched = wrapt.wrap_function_wrapper(\n"
        "        'kombu.messaging', 'Producer.publish', lambda call, _, args, kwargs: call(*args, **kwargs)\n"
        "    )"
    ),
}


#: Queues that refuse what is more than one message.
FULL = """
from kombu import Exchange, Queue
CELERY_TASK_QUEUES = [
    Queue(
        name, Exchange(name), routing_key=name, queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    for name in ("celery", "shopapp.signals.my_signal")
]
"""


class TestWhatIsPromised:
    """Settings that half the world has take nothing from what a send promises."""

    @pytest.mark.parametrize("setting", WATCHED)
    @pytest.mark.parametrize("scheme", ["redis", "amqp"])
    def test_the_deadline_and_the_background_hold(
        self, make_project: MakeProject, silent: str, scheme: str, setting: str
    ) -> None:
        project = make_project(
            None,
            url=f"{scheme}://guest:guest@{silent}/0",
            settings=f'{WATCHED[setting]}\nASYNC_SIGNALS = {{"publish_timeout": 1, "flush_timeout": 0.1}}',
        )
        report = project.attempt(
            TIMED
            + """
    import asyncio
    result = [
        timed(lambda: my_signal.send(None)),
        timed(lambda: asyncio.run(my_signal.asend(None))),
        timed(lambda: buffered.send(None)),
        timed(lambda: asyncio.run(buffered.asend(None))),
    ]
    """
        )
        assert report.error is None, report.output
        confirmed, aconfirmed, background, abackground = report.result
        for code, seconds in (confirmed, aconfirmed):
            assert code == "deadline"
            assert seconds < 1 + GRACE
        for code, seconds in (background, abackground):
            assert code is None
            assert seconds < GRACE

    @pytest.mark.parametrize("setting", WATCHED)
    def test_a_queue_that_takes_nothing_is_an_error(
        self, make_project: MakeProject, rabbitmq_server: Broker, setting: str
    ) -> None:
        """Publisher confirms hold: a full queue that rejects is no success."""
        project = make_project(rabbitmq_server, settings=f"{FULL}\n{WATCHED[setting]}")
        report = project.attempt(TIMED + "\n    result = [timed(lambda: my_signal.send(None))[0] for _ in range(3)]")
        assert report.result[0] is None, report.output
        assert report.result[-1] == "queue_full"

    @pytest.mark.parametrize("setting", WATCHED)
    def test_a_stock_worker_runs_it(self, make_project: MakeProject, broker: Broker, setting: str) -> None:
        project = make_project(broker, settings=WATCHED[setting])
        with project.worker(("celery", "shopapp.signals.my_signal")):
            project.run("from shopapp.signals import my_signal as s; s.send('web', number=1, tags={'a'})")
            [effect] = project.effects.wait_for(1, "mine")
        assert effect["arguments"]["number"] == 1


class TestForeignBrokers:
    """Where the core does not speak to the broker, the deadline and the background hold all the same."""

    SETTINGS = """
    CELERY_BROKER_TRANSPORT = "proj.transports:Transport"
    CELERY_BROKER_CONNECTION_TIMEOUT = 60
    ASYNC_SIGNALS = {"publish_timeout": 1, "flush_timeout": 0.1, "buffer_size": 20, "on_failure": "proj.failures.note"}
    """

    def test_a_silent_one(self, make_project: MakeProject, silent: str) -> None:
        project = make_project(None, url=f"redis://{silent}/0", settings=self.SETTINGS)
        project.migrate()
        report = project.attempt(
            TIMED
            + """
    import asyncio, threading
    from django.db import transaction
    from proj.failures import wait_for
    result = [timed(lambda: my_signal.send(None)) for _ in range(3)]
    result.append(timed(lambda: asyncio.run(my_signal.asend(None))))
    def commit():
        with transaction.atomic():
            for _ in range(50):
                my_signal.send(None)
    seconds = timed(commit)[1]
    wait_for(50)
    backgrounds = [timed(lambda: buffered.send(None)) for _ in range(30)]
    result = [result, seconds, backgrounds, threading.active_count()]
    """
        )
        assert report.error is None, report.output
        sends, commit, backgrounds, threads = report.result
        for code, seconds in sends:
            assert code == "deadline"
            assert seconds < 1 + GRACE
        assert commit < 1 + GRACE
        assert [code for code, _ in backgrounds].count("buffer_full") >= 9, "the buffer is bounded"
        assert all(seconds < GRACE for _, seconds in backgrounds)
        assert threads < 16

    def test_one_that_is_not_there(self, make_project: MakeProject) -> None:
        project = make_project(None, url=f"redis://127.0.0.1:{free_port()}/0", settings=self.SETTINGS)
        report = project.attempt(TIMED + "\n    result = timed(lambda: my_signal.send(None))")
        code, seconds = report.result
        assert code in ("celery", "deadline")
        assert seconds < 1 + GRACE

    def test_what_is_sent_in_the_background_is_flushed_at_exit(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        project = make_project(redis_server, settings='CELERY_BROKER_TRANSPORT = "proj.transports:Transport"')
        project.run("from shopapp.signals import buffered\nfor n in range(100): buffered.send(None, number=n)")
        assert project.queues() == {"elsewhere.celery": 100}

    def test_the_context_of_the_sender_is_there(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        """What patches `Producer.publish` finds the trace, and listeners run in the sender's thread."""
        project = make_project(redis_server, settings='CELERY_BROKER_TRANSPORT = "proj.transports:Transport"')
        report = project.run(
            """
            import contextvars, threading
            from celery.signals import before_task_publish
            from kombu import Producer
            from shopapp.signals import my_signal
            trace, seen = contextvars.ContextVar("trace"), []
            trace.set("t1")
            publish = Producer.publish
            def traced(self, *args, **kwargs):
                seen.append(trace.get(None))
                return publish(self, *args, **kwargs)
            Producer.publish = traced
            before_task_publish.connect(lambda **_: seen.append(threading.current_thread().name), weak=False)
            my_signal.send(None)
            result = seen
            """
        )
        assert report.result[0] == "MainThread"
        assert set(report.result[1:]) == {"t1"}

    def test_the_order_of_one_thread_is_kept(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server, settings='CELERY_BROKER_TRANSPORT = "proj.transports:Transport"')
        project.migrate()
        project.run(
            """
            from django.db import transaction
            from shopapp.signals import my_signal
            with transaction.atomic():
                for number in range(50):
                    my_signal.send(None, number=number)
            """
        )
        assert project.taken_arguments("number", "elsewhere.celery") == [*range(50)]

    def test_one_that_is_silent_holds_up_no_other(
        self, make_project: MakeProject, redis_server: RedisServer, silent: str
    ) -> None:
        project = make_project(redis_server, settings=self.SETTINGS)
        report = project.attempt(
            TIMED
            + f"""
    from concurrent.futures import ThreadPoolExecutor
    from celery import Celery
    from proj.celery import app
    from async_signals.routing import find_app
    silent = Celery("silent", broker="redis://{silent}/0", set_as_current=False)
    silent.conf.update(broker_transport="proj.transports:Transport")
    def send(_):
        silent.set_current()
        return timed(lambda: my_signal.send(None))[0]
    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(send, range(24)))
    app.set_current()
    result = [codes, timed(lambda: my_signal.send(None))[0]]
    """
        )
        assert report.error is None, report.output
        codes, healthy = report.result
        assert set(codes) <= {"deadline", "buffer_full"}
        assert healthy is None

    def test_each_process_has_connections_of_its_own(
        self, make_project: MakeProject, redis_server: RedisServer
    ) -> None:
        project = make_project(redis_server, settings='CELERY_BROKER_TRANSPORT = "proj.transports:Transport"')
        report = project.run(
            """
            import os
            from proj.celery import app
            from shopapp.signals import my_signal
            my_signal.send(None, number=0)
            pool = app.pool
            child = os.fork()
            if not child:
                ok = app.pool is not pool
                my_signal.send(None, number=1)
                os._exit(0 if ok else 1)
            my_signal.send(None, number=2)
            result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            """
        )
        assert report.result == 0
        assert sorted(project.taken_arguments("number", "elsewhere.celery")) == [0, 1, 2]

    def test_listeners_hear_of_each_send_once(self, make_project: MakeProject, rabbitmq_server: Broker) -> None:
        """Also where it is found out only after Celery has made the message that its route is not the core's."""
        project = make_project(
            rabbitmq_server,
            settings="""
            from kombu import Exchange, Queue
            CELERY_TASK_QUEUES = [Queue("celery", Exchange("everywhere", type="fanout"))]
            """,
        )
        report = project.run(
            """
            from celery.signals import before_task_publish, after_task_publish
            from shopapp.signals import my_signal
            heard = []
            before_task_publish.connect(lambda **_: heard.append("before"), weak=False)
            after_task_publish.connect(lambda **_: heard.append("after"), weak=False)
            my_signal.send(None, number=1)
            result = heard
            """
        )
        assert report.result == ["before", "after"]
        assert project.taken_arguments("number") == [1]


def test_a_listener_that_comes_and_goes(make_project: MakeProject, redis_server: RedisServer) -> None:
    """It hears of what is sent while it is there; before and after, sends take the short way."""
    project = make_project(redis_server)
    report = project.run(
        """
        from celery.signals import before_task_publish
        from async_signals.routing import plan_for
        from shopapp.signals import my_signal
        heard, short = [], []

        def hear(**_):
            heard.append(len(short))

        for listens in (False, True, False, True):
            (before_task_publish.connect if listens else before_task_publish.disconnect)(hear)
            my_signal.send(None, number=len(short))
            short.append(plan_for(my_signal).template is not None)
        result = [heard, short]
        """
    )
    assert report.result == [[1, 3], [True, False, True, False]]
    assert project.taken_arguments("number") == [0, 1, 2, 3]


class TestSettingsThatChange:
    def test_routes_and_brokers_at_run_time(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server)
        other = redis_server.fresh_url()
        project.run(
            f"""
            from proj.celery import app
            from shopapp.signals import my_signal
            my_signal.send(None, number=1)
            app.conf.update(task_routes={{"async_signals.*": {{"queue": "elsewhere"}}}})
            my_signal.send(None, number=2)
            app.conf.update(broker_url={other!r}, broker_write_url={other!r})
            my_signal.send(None, number=3)
            """
        )
        assert project.queues() == {"celery": 1, "elsewhere": 1}
        assert redis_server.queues(other) == {"elsewhere": 1}

    def test_a_worker_that_takes_no_json(self, make_project: MakeProject, redis_server: RedisServer) -> None:
        project = make_project(redis_server, settings='CELERY_ACCEPT_CONTENT = ["yaml"]')
        report = project.attempt("from shopapp.signals import my_signal as s; s.send(None)")
        assert "accept_content" in report.failed("ImproperlyConfigured")
        assert project.queues() == {}


def values_of(event: dict[str, Any]) -> str:
    """Whatever an event shows of a message's arguments."""
    return f"{event.get('args')} {event.get('kwargs')}"


@pytest.mark.parametrize("protocol", [1, 2])
def test_an_event_shows_no_values(make_project: MakeProject, redis_server: RedisServer, protocol: int) -> None:
    project = make_project(
        redis_server, settings=f"CELERY_TASK_SEND_SENT_EVENT = True\nCELERY_TASK_PROTOCOL = {protocol}"
    )
    report = project.run(
        """
        import contextlib, threading
        from proj.celery import app
        from shopapp.signals import my_signal
        events, ready = [], threading.Event()
        class Stop(Exception): pass
        def keep(event):
            events.append(event)
            raise Stop
        def listen():
            with app.connection_for_read() as connection:
                receiver = app.events.Receiver(connection, handlers={"task-sent": keep})
                with receiver.consumer_context():
                    ready.set()
                    with contextlib.suppress(Stop):
                        list(receiver.consume(limit=None, timeout=20))
        thread = threading.Thread(target=listen)
        thread.start()
        assert ready.wait(20)
        sent = []
        while thread.is_alive():  # kombu subscribes a little after it says so
            sent.append(my_signal.send("web", secret="personal").id)
            thread.join(0.2)
        [event] = events
        result = {key: value for key, value in event.items() if isinstance(value, (str, int, float, type(None)))}
        result["same"] = event["uuid"] in sent
        """
    )
    event = report.result
    assert event["same"]
    assert event["name"] == "async_signals.propagate"
    assert event["queue"] == "celery"
    assert "personal" not in values_of(event)
