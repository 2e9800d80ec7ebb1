"""A worker from its first moment to its last: what comes before its processes, and after them."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from typing import Any

import click
from celery import Celery, platforms
from celery.utils.nodenames import worker_direct
from django.core.exceptions import ImproperlyConfigured
from kombu.serialization import prepare_accept_content

from async_signals import pauses, routing
from async_signals.errors import BrokerMisconfigured
from async_signals.publishing.broker import broker_options
from async_signals.routing import NotNative

from . import banner, connections
from .child import Plan
from .lifecycle import Lifecycle
from .monitor import Monitor
from .options import Options
from .reports import Reports
from .supervisor import Supervisor

logger = logging.getLogger("async_signals.worker")

#: What a message could bring to life, which no broker is trusted with.
_UNSAFE = frozenset({"application/x-python-serialize", "pickle"})


class Refused(click.ClickException):
    """The worker cannot start as it is set up. Ends the program with exit code 1."""

    exit_code = 1


class Program:
    """One worker, as the command starts it.

    Arguments:
        app: The Celery app.
        flags: The command's, by the names of `Options`.
    """

    def __init__(self, app: Celery, flags: dict[str, Any]) -> None:
        self._app = app
        self._flags = flags

    def run(self) -> int:
        """Until it is stopped. Returns the exit code.

        Raises:
            Refused: It cannot start.
        """
        app, hostname = self._app, self._flags["hostname"]
        lifecycle = Lifecycle(app, hostname, self._flags)
        lifecycle.begin()
        options = Options.of(app, dict(self._flags))
        has_own_log = app.log.setup(options.loglevel, options.logfile, redirect_stdouts=False, hostname=hostname)
        app.finalize()
        self._select_queues(options)
        lifecycle.set_up()
        plan = self._plan(options, lifecycle)
        with ExitStack() as stack:
            if options.pidfile:
                stack.callback(platforms.create_pidlock(options.pidfile).release)
            banner.show(app, options)
            if app.conf.worker_redirect_stdouts and not has_own_log:
                stack.callback(_redirect, sys.stdout, sys.stderr)
                app.log.redirect_stdouts(app.conf.worker_redirect_stdouts_level)
            return self._supervise(plan)

    def _supervise(self, plan: Plan) -> int:
        # A connection or a pool of them that importing the project has opened is not for all processes.
        connections.close_all()
        lifecycle, options = plan.lifecycle, plan.options
        reports = Reports()
        supervisor = Supervisor(plan, reports)
        monitor = Monitor(
            self._app,
            options.hostname,
            reports,
            supervisor,
            task_events=options.task_events,
            heartbeat=2.0 if options.heartbeat else None,
        )

        def ready() -> None:
            monitor.start()
            lifecycle.ready()
            logger.info("%s ready.", options.hostname)

        supervisor.on_ready = ready
        supervisor.on_stopping = lifecycle.shutting_down
        watch = _watch_pauses(supervisor, reports)
        try:
            return supervisor.run()
        finally:
            watch.close()
            monitor.stop()
            lifecycle.ended()

    def _select_queues(self, options: Options) -> None:
        queues = self._app.amqp.queues
        try:
            queues.select(list(options.queues))
        except KeyError as unknown:
            known = ", ".join(sorted(queues)) or "none"
            raise Refused(
                f"there is no queue {unknown.args[0]!r}: task_queues has {known}, and task_create_missing_queues is off"
            ) from None
        if options.exclude_queues:
            queues.deselect(list(options.exclude_queues))
        if self._app.conf.worker_direct:
            queues.select_add(worker_direct(options.hostname))
        if not queues.consume_from:
            raise Refused("there is no queue left to read")

    def _plan(self, options: Options, lifecycle: Lifecycle) -> Plan:
        """Everything that can be known to be wrong without the broker is found out here."""
        app = self._app
        if not routing.has_broker(app):
            raise Refused("no broker: set broker_url in Celery's settings")
        unsafe = _UNSAFE & set(prepare_accept_content(app.conf.accept_content) or ())
        if unsafe:
            raise Refused(
                "accept_content lets pickle in: whoever may write to the queues could then run anything here; "
                "take it out of accept_content"
            )
        if app.conf.broker_read_url != app.conf.broker_write_url:
            raise Refused(
                "broker_read_url and broker_write_url differ: this worker knows one broker; use `celery worker`"
            )
        try:
            broker = broker_options(app)
            queues = routing.route("", "", list(app.amqp.queues.consume_from.values()))["declare"]
        except NotNative as error:
            raise Refused(f"{error}, and neither does this worker; use `celery worker`") from None
        except (BrokerMisconfigured, ImproperlyConfigured) as error:
            raise Refused(str(error)) from None
        return Plan(app=app, options=options, lifecycle=lifecycle, broker=broker, queues=queues)


def _watch_pauses(supervisor: Supervisor, reports: Reports) -> pauses.Watch:
    """Has the processes know what is paused, from before the first one is started."""

    def obey(paused: pauses.Paused) -> None:
        # What a process is forked with, and what those are told that are there.
        pauses.tell(paused)
        reports.tell_paused(paused)
        supervisor.pause(paused.queues)

    # Not even a pool of connections is kept: nothing else in this process asks a database.
    watch = pauses.Watch(obey, always=True, close=connections.close_all)
    pauses.tell(pauses.Paused())
    if pauses.is_installed():
        watch.current()
    return watch


def _redirect(stdout: Any, stderr: Any) -> None:
    sys.stdout, sys.stderr = stdout, stderr
