"""What keeps a signal from its receivers: in the settings, at the broker, and with the workers."""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from django.core import checks as django_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from async_signals import _native, pauses, propagation, routing, settings
from async_signals.errors import BrokerMisconfigured, SignalNotSent
from async_signals.publishing.broker import broker_options
from async_signals.routing import NotNative

from .answers import ANSWER, declare, within
from .dead_letters import DeadLetterQueue, dead_letter_queues
from .queues import QueueInfo, QueueLook, queues
from .routes import Routes
from .signals import signals_by_queue, some_of
from .workers import WorkerInfo, workers

if TYPE_CHECKING:
    from celery import Celery

Level = Literal["ok", "warning", "error"]

#: Where the signal goes that is sent to find out whether one arrives. Deleted afterwards, where the broker can.
PROBE_QUEUE = "async_signals.doctor"
#: For how long a message may wait before it is worth a word, in seconds.
_LONG = 60.0

#: What mends what the broker says, by the code of a ``SignalNotSent``.
_CURES = {
    "unreachable": "Start the broker, or correct broker_url: host, port, and whether it speaks TLS there.",
    "deadline": "Something holds messages up: look at the broker's log and load; on Redis: is this the primary?",
    "authentication": "Correct the user and password in broker_url (percent-encoded), or add the user at the broker.",
    "access_refused": "Give the user the permission that the broker names; on RabbitMQ: rabbitmqctl set_permissions.",
    "tls": "Correct broker_use_ssl: the authority's certificate, and a host name that the server's certificate has.",
    "blocked": "RabbitMQ takes no messages while an alarm is on: free memory or disk; rabbitmqctl status names it.",
    "unroutable": "Celery's exchange has no queue for this message: correct task_queues and task_routes.",
    "precondition_failed": "Delete the queue when it is empty, or give it in task_queues the arguments that it has.",
    "queue_full": "Start workers for it, or raise the queue's x-max-length.",
    "out_of_memory": "Raise Redis' maxmemory, or let workers empty the queues.",
    "misconfigured": "Correct the setting that it names.",
    "refused": "Look at the broker's log; on Redis: is this the primary, may it write to its disk?",
}
#: What mends what lies in dead-letter queues, by its kind.
_DEAD_CURES = {
    "UnknownSignal": "A worker runs older code, or does not import the module that makes the signal: deploy workers "
    "before senders, then `signals dead replay`.",
    "UnknownReceiver": "A receiver was renamed or removed while its retries waited: give it back its name or a "
    "dispatch_uid, then `signals dead replay`; else `discard`.",
    "ReceiversFailed": "Their tries are spent: `signals dead show` has the tracebacks; mend, then `dead replay`.",
    "MissingRow": "A model instance was deleted before a worker took it: AsyncSignal(on_missing='skip') leaves such "
    "signals alone.",
    "TooManyDeliveries": "These messages kill their workers: `signals dead show`, mend the receiver, then replay.",
    "UnknownTask": "A worker took tasks that it does not have: read only queues whose tasks it imports.",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        level: "ok", "warning" (it works, or may), or "error" (signals do not get through).
        what: What was looked at, in a word or two.
        text: What was found.
        cure: What mends it; None where nothing needs to be.
    """

    level: Level
    what: str
    text: str
    cure: str | None = None


def diagnose() -> Iterator[Finding]:
    """Looks at one thing after the other, each as it is asked for, and goes on as far as that makes sense."""
    errors: list[str] = []
    for finding in _all():
        if finding.level == "error":
            # What is wrong in one place stands in the way of others: it is said once.
            core = finding.text.partition(": ")[2] or finding.text
            if any(finding.text in error or core in error for error in errors):
                continue
            errors.append(finding.text)
        yield finding


def _all() -> Iterator[Finding]:
    with _core_log() as warnings:
        yield from _settings()
        try:
            app = routing.find_app()
        except ImproperlyConfigured:
            return  # a check has said so
        if app is None:
            return
        yield from _modules(app)
        if app.conf.task_always_eager:
            yield Finding(
                "warning",
                "settings",
                "task_always_eager is on: receivers run where signals are sent, and nothing reaches the broker",
                "Switch it off outside of tests.",
            )
        try:
            look = QueueLook(app)
        except (BrokerMisconfigured, SignalNotSent, ImproperlyConfigured) as error:
            yield _failure("broker", error)
            return
        with look:
            yield from _guarded("broker", _broker(app, look))
            yield from _tell(warnings)
            yield from _guarded("queues", _queues(app, look))
            yield from _guarded("paused", _paused(app, look))
            yield from _guarded("workers", _workers(app))
            yield from _guarded("dead letters", _dead_letters(app, look))
            yield from _tell(warnings)


def _guarded(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What a part finds; that it failed, where something of the project's stood in its way."""
    try:
        yield from findings
    except Exception as error:
        yield Finding(
            "error",
            what,
            f"{type(error).__name__}: {error}",
            "Correct what it names: nothing more could be found out here.",
        )


def _settings() -> Iterator[Finding]:
    from async_signals import checks

    found = django_checks.run_checks(tags=[checks.TAG], include_deployment_checks=True)
    from django.db import connections

    found += checks.check_tables(databases=list(connections))
    problems = [message for message in found if not message.is_silenced()]
    for message in problems:
        level: Level = "error" if message.level >= django_checks.ERROR or message.id in _GRAVE else "warning"
        cure = message.hint or f"Correct the setting that it names; docs/checks.md tells more of {message.id}."
        yield Finding(level, "settings", f"{message.msg} ({message.id})", cure)
    if not problems:
        yield Finding("ok", "settings", "manage.py check --deploy has nothing to say about signals")


#: Warnings of checks that mean, here, that nothing gets through.
_GRAVE = frozenset({"async_signals.W001", "async_signals.W004"})


def _modules(app: Celery) -> Iterator[Finding]:
    try:
        app.loader.import_default_modules()
    except Exception as error:
        yield Finding(
            "error",
            "modules",
            f"a worker cannot start, since its modules do not load: {type(error).__name__}: {error}",
            "Correct the module: celery -A … report shows the whole traceback.",
        )


def _broker(app: Celery, look: QueueLook) -> Iterator[Finding]:
    where = app.connection_for_write().as_uri()
    try:
        look.depth(PROBE_QUEUE)
    except SignalNotSent as error:
        yield _failure("broker", error)
        return
    yield Finding("ok", "broker", f"{where} answers")
    if app.conf.task_always_eager:
        return
    if look.native is None:
        yield Finding("warning", "round trip", "not tried: the core does not speak to this broker", None)
        return
    if not app.conf.task_create_missing_queues:
        yield Finding(
            "warning", "round trip", "not tried: task_create_missing_queues is off, and it needs a queue of its own"
        )
        return
    yield _round_trip(app, look)


def _round_trip(app: Celery, look: QueueLook) -> Finding:
    """Sends a signal as the project sends any, and takes it out of its queue again."""
    from async_signals.dispatcher import AsyncSignal

    token = uuid.uuid4().hex
    seen: list[str] = []

    def receive(*, token: str, **_: Any) -> None:
        seen.append(token)

    probe = AsyncSignal(queue=PROBE_QUEUE, name=PROBE_QUEUE, expires=60, on_commit=False, durability="confirmed")
    probe.connect(receive, weak=False)
    begun = time.monotonic()
    try:
        sent = probe.send(None, token=token)
        sending = time.monotonic() - begun
        native = _native.DeadLetterQueue(**broker_options(app), queue=PROBE_QUEUE, timeout=look.timeout)
        with closing(native):
            examined, texts = native.take(100, {"ids": [sent.id]})
            if not texts:
                return Finding(
                    "error",
                    "round trip",
                    f"a signal was sent to queue {PROBE_QUEUE} and is not there ({examined} others are)",
                    "Something else takes or sends it: a worker that reads every queue, or a patched apply_async.",
                )
            _run(probe, texts[0])
            native.discard(0)
    except (SignalNotSent, BrokerMisconfigured) as error:
        return _failure("round trip", error)
    except Exception as error:
        return Finding("error", "round trip", f"{type(error).__name__}: {error}", None)
    finally:
        probe.disconnect(receive)  # so that it is none of the project's signals, for as long as it is there
        _delete(app, PROBE_QUEUE)
    if seen != [token]:
        return Finding("error", "round trip", "the signal came back, and its receiver did not run", None)
    return Finding(
        "ok",
        "round trip",
        f"a signal was sent ({sending * 1000:.1f} ms until the broker had confirmed it), taken and received",
    )


def _run(probe: Any, text: str) -> None:
    import json

    told = json.loads(text)
    (name, sender), named, _ = _native.decode_body(json.dumps(told["body"]).encode())
    propagation.run(probe, sender, named, propagation.here(told["id"], name))


def _delete(app: Celery, queue: str) -> None:
    """Deletes a queue of ours, and the exchange that Celery made for it, where the broker can."""
    with suppress(Exception), app.connection_for_write(connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
        if connection.transport.driver_type in ("sql", "sqlite"):
            return  # kombu's tables have no way to forget a queue
        with connection.channel() as channel:
            channel.queue_delete(queue)
            channel.exchange_delete(queue)


def _queues(app: Celery, look: QueueLook) -> Iterator[Finding]:
    there = []
    for queue in queues(app, look):
        yield from _queue(queue)
        if queue.signals and queue.exists:
            there.append(queue.name)
    yield from _declarations(app, there)


def _workers(app: Celery) -> Iterator[Finding]:
    try:
        answering = workers(app)
    except SignalNotSent as error:
        yield _failure("workers", error)
        return
    if answering is None:
        yield Finding(
            "warning", "workers", "not asked: this broker carries no remote control", "Look whether a worker runs."
        )
        return
    if not answering:
        yield Finding(
            "error",
            "workers",
            "no worker answers",
            "Start one: async-signals -A … worker, or celery -A … worker. One that is busy with a long task in the "
            "solo pool does not answer either.",
        )
        return
    going_to = signals_by_queue(app)
    for worker in answering:
        yield _worker(worker, set(going_to))
    read = {name for worker in answering if worker.runs_signals is not False for name in worker.queues}
    for queue, going in sorted(going_to.items()):
        if queue not in read:
            yield Finding(
                "error",
                "workers",
                f"no worker that answers reads queue {queue}, where {some_of(going)} goes",
                f"Start a worker with -Q {queue}, or: celery -A … control add_consumer {queue}",
            )


def _declarations(app: Celery, names: list[str]) -> Iterator[Finding]:
    """Whether queues that are there can be declared as Celery would: RabbitMQ refuses other arguments, at each send."""
    declared = Routes(app).router.queues
    connection = app.connection_for_write(connect_timeout=2)
    try:
        if connection.transport.driver_type != "amqp":
            return
        for name in names:
            queue = declared[name]  # made as Celery makes it, where the settings do not have it
            if queue.no_declare:
                continue
            try:
                within(ANSWER, partial(declare, connection, queue))
            except TimeoutError as error:
                yield Finding("error", "queues", f"queue {name}: {error}", _CURES["deadline"])
                return
            except Exception as error:
                yield Finding("error", "queues", f"queue {name}: {error}", _CURES["precondition_failed"])
    finally:
        with suppress(Exception):
            within(ANSWER, connection.release)


def _queue(queue: QueueInfo) -> Iterator[Finding]:
    if queue.error is not None:
        yield Finding("error", "queues", f"queue {queue.name}: {queue.error}", _CURES["access_refused"])
    if queue.is_paused:
        return
    if queue.signals and queue.consumers == 0 and queue.ready:
        yield Finding(
            "error",
            "queues",
            f"{_messages(queue)} in queue {queue.name}, and nobody reads it",
            f"Start a worker with -Q {queue.name}.",
        )
    elif queue.oldest is not None and queue.oldest > _LONG:
        yield Finding(
            "warning",
            "queues",
            f"{_messages(queue)} in queue {queue.name}, the next one for {queue.oldest:,.0f} s already",
            "Start more workers for it, or find out what they wait for: celery -A … inspect active.",
        )


def _paused(app: Celery, look: QueueLook) -> Iterator[Finding]:
    if not settings.get().enabled:
        yield Finding(
            "warning",
            "paused",
            "ASYNC_SIGNALS['enabled'] is False: no receiver of any signal runs",
            "Take it out, and then: manage.py signals resume",
        )
    with suppress(DatabaseError, ImproperlyConfigured):  # without a table nothing is
        for pause in pauses.pauses():
            why = f": {pause.reason}" if pause.reason else ""
            yield Finding(
                "warning",
                "paused",
                f"{pause} is paused since {pause.at:%Y-%m-%d %H:%M %Z} by {pause.by or '?'}{why}",
                f"manage.py signals resume --{pause.kind} {pause.name}",
            )
    aside = pauses.queue_aside(app)
    depth = look.depth(aside)
    if depth is not None and (count := depth["ready"]):
        yield Finding(
            "warning",
            "paused",
            f"{count:,} {'message waits' if count == 1 else 'messages wait'} in {aside}",
            "What is paused no longer goes on with: manage.py signals resume",
        )


def _messages(queue: QueueInfo) -> str:
    return "1 message waits" if queue.ready == 1 else f"{queue.ready:,} messages wait"


def _worker(worker: WorkerInfo, ours: set[str]) -> Finding:
    # Other projects' workers answer too, where the broker is theirs as well.
    about = f"{worker.name} ({worker.pool or 'unknown pool'}) reads {', '.join(worker.queues) or 'nothing'}"
    if worker.runs_signals is False and ours & set(worker.queues):
        return Finding(
            "error",
            "workers",
            f"{about}, and does not have the task {routing.TASK}",
            "Restart it with the code that imports async_signals, as a task's module or an app in INSTALLED_APPS does.",
        )
    return Finding("ok", "workers", about)


def _dead_letters(app: Celery, look: QueueLook) -> Iterator[Finding]:
    total, kinds, examples = 0, Counter[str](), dict[str, str]()
    for name in dead_letter_queues(app):
        queue = DeadLetterQueue(app, name, look)
        try:
            total += (there := queue.count())
            if not there:
                continue
            # The first of them tell enough.
            for page in queue.pages():
                for letter in page.letters:
                    kinds[letter.kind or "?"] += 1
                    examples.setdefault(letter.kind or "?", f"{letter.signal}: {letter.reason}")
                break
        except NotNative:
            return  # the broker's own tools tell
        except SignalNotSent as error:
            yield _failure(f"dead letters in {name}", error)
    for kind, _ in kinds.most_common():
        yield Finding(
            "warning",
            "dead letters",
            f"{kind}, as of {examples[kind]}",
            _DEAD_CURES.get(kind, "`signals dead list` and `show` have the reasons."),
        )
    if total:
        yield Finding("warning", "dead letters", f"{total:,} in all", "`manage.py signals dead list` shows them.")
    else:
        yield Finding("ok", "dead letters", "none")


def _failure(what: str, error: Exception) -> Finding:
    code = getattr(error, "code", None)
    return Finding("error", what, str(error), _CURES.get(str(code), _CURES["misconfigured"]))


def _tell(warnings: list[str]) -> Iterator[Finding]:
    """What the core has warned of meanwhile."""
    _native.drain_events(1.0)
    for text in dict.fromkeys(warnings):
        yield Finding("warning", "broker", text, "Change the broker's configuration.")
    warnings.clear()


@contextmanager
def _core_log() -> Iterator[list[str]]:
    """Collects the warnings of the core."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(texts) < 100:
                texts.append(record.getMessage())

    logger, collector = logging.getLogger("async_signals.core"), Collector(logging.WARNING)
    logger.addHandler(collector)
    propagates, logger.propagate = logger.propagate, False
    try:
        yield texts
    finally:
        logger.propagate = propagates
        logger.removeHandler(collector)
