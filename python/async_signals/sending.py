"""A send: its arguments are checked, it waits for a commit or does not, is encoded, and is handed over."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from . import _native, compat, interceptors, pauses, propagation, publishing, routing, settings, transactions
from .errors import DuplicateSignalName, NoWireName, SignalNotSent
from .interceptors import active as _interceptors
from .publishing import failure_reports

if TYPE_CHECKING:
    from .dispatcher import AsyncSignal
    from .interceptors import Recorder
    from .publishing import AnyReceipt, Message
    from .routing import SendPlan

_RUNNING_TASKS = compat.running_tasks
#: For how much longer than its deadline a coroutine waits for the word that it has passed, in seconds.
_SLACK = 2.0


class Sent(list[tuple[Any, Any]]):
    """``(receiver, response)`` pairs of the receivers that ran here: none when the work went to Celery.

    Attributes:
        id: The id of the task; None when the receivers ran here without one.
    """

    __slots__ = ("id",)

    def __init__(self, pairs: Iterable[tuple[Any, Any]] = (), id: str | None = None) -> None:
        super().__init__(pairs)
        self.id = id

    def __repr__(self) -> str:
        return f"<Sent {self.id or 'here'} {super().__repr__()}>"


def send(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], robust: bool) -> Sent:
    """Sends a signal. See ``AsyncSignal.send``."""
    _check(signal, named)
    recorder = None
    if _interceptors:
        try:
            recorder = interceptors.recorder_of(signal)
        except interceptors.Muted:
            return Sent((), _new_id(options))
    plan = routing.plan_for(signal)
    if plan.app is None and recorder is None:
        _warn_not_configured()
        method = Signal.send_robust if robust else Signal.send
        return Sent(method(signal, sender, **named))
    if plan.may_refuse and recorder is None:
        pauses.refuse(signal, plan, options)
    on_commit = options.get("on_commit")
    if plan.on_commit if on_commit is None else on_commit:
        connection = transactions.pending(sender, named, options.get("database"))
        if connection is not None:
            if publishing.check_process():
                plan = routing.plan_for(signal)
            pending = PendingSend(plan, signal, sender, named, options, recorder, snapshot=True)
            transactions.publish_on_commit(connection, pending)
            return Sent((), pending.id)
    template = plan.template
    if template is None or options or recorder is not None:
        if publishing.check_process():
            plan = routing.plan_for(signal)
        return PendingSend(plan, signal, sender, named, options, recorder).publish()
    # Asked here, since it is no in every process but a worker's.
    task = compat.running_task() if _RUNNING_TASKS or _RUNNING_TASKS is None else None
    try:
        if plan.durability == "background":
            return Sent((), template.background(sender, named, task))
        prepared = template.prepare(sender, named, task)
        publishing.confirm(prepared)
    except SignalNotSent as error:
        if error.code == "closed" and publishing.check_process():
            return send(signal, sender, named, options, robust)  # by this process's own publisher
        if error.code == "buffer_full":
            return PendingSend(plan, signal, sender, named, options).publish()  # which waits for room
        raise
    return Sent((), prepared.id)


async def asend(signal: AsyncSignal, sender: Any, named: dict[str, Any], options: dict[str, Any], robust: bool) -> Sent:
    """Sends a signal without blocking the event loop. See ``AsyncSignal.asend``."""
    _check(signal, named)
    recorder = None
    if _interceptors:
        try:
            recorder = interceptors.recorder_of(signal)
        except interceptors.Muted:
            return Sent((), _new_id(options))
    publishing.check_process()
    plan = routing.plan_for(signal)
    if plan.app is None and recorder is None:
        _warn_not_configured()
        method = Signal.asend_robust if robust else Signal.asend
        return Sent(await method(signal, sender, **named))
    if plan.may_refuse and recorder is None:
        await pauses.awatch()
        pauses.refuse(signal, plan, options)
    pending = PendingSend(plan, signal, sender, named, options, recorder)
    if plan.eager:
        from asgiref.sync import sync_to_async

        return await sync_to_async(pending.publish)()
    for message in await pending.amessages():
        await (_abuffer(message) if pending.durability == "background" else _aconfirm(message))
    return Sent((), pending.id)


def _check(signal: AsyncSignal, named: dict[str, Any]) -> None:
    if signal.providing_args is not None:
        signal._check_arguments(named)
    if "signal" in named:
        raise TypeError("an argument cannot be called 'signal': receivers get the signal itself by that name")


class PendingSend:
    """One send, encoded, not yet published: its errors are known, and what is changed afterwards does not change it.

    Arguments:
        recorder: Who takes it in the place of Celery.
        snapshot: Whether it is published later on, so that its arguments may have been changed by then.

    Attributes:
        signal: The signal.
        options: What ``options()`` was given.
        recorder: As the argument.
        id: The task's id.
        durability: "confirmed" or "background".
        is_eager: Whether its receivers run here.
    """

    __slots__ = (
        "_message",
        "_named",
        "_plan",
        "_record",
        "_sender",
        "durability",
        "id",
        "is_eager",
        "options",
        "recorder",
        "signal",
    )

    def __init__(
        self,
        plan: SendPlan,
        signal: AsyncSignal,
        sender: Any,
        named: dict[str, Any],
        options: dict[str, Any],
        recorder: Recorder | None = None,
        snapshot: bool = False,
    ) -> None:
        self._plan = plan
        self.signal = signal
        self.recorder = recorder
        self.options = options
        self._sender, self._named = sender, named
        self.durability = options.get("durability") or plan.durability
        self.is_eager = plan.eager and recorder is None
        self._message: Message | None = None
        self._record: Callable[[], None] | None = None
        if recorder is None and plan.template is not None and not _of_one_send(options):
            self._message = plan.template.prepare(sender, named, compat.running_task())
            self.id: str = self._message.id
            return
        self.id = _new_id(options)
        name = plan.name if plan.app is not None else _name_here(signal)
        body = _native.encode_body(name, sender, named, settings.get().max_message_size)
        if recorder is not None:
            self._record = recorder.record(self, sender, named, body)
        elif snapshot or plan.eager:
            (_, self._sender), self._named, _ = _native.decode_body(body)

    def publish(self) -> Sent:
        """Publishes it as sure as it is to be.

        Raises:
            SignalNotSent: It was not handed over.
        """
        if self._record is not None:
            self._record()
        elif self.is_eager:
            return self._run_here()
        else:
            self._hand_over(publishing.buffer if self.durability == "background" else publishing.confirm)
        return Sent((), self.id)

    def start(self, timeout: float) -> StartedSend | None:
        """Hands it over without waiting for the broker's word; None: there is none to wait for.

        Arguments:
            timeout: Seconds until its deadline.

        Raises:
            SignalNotSent: It was not handed over.
        """
        if self._record is not None:
            self.publish()
            return None
        if self.durability == "background":
            self._hand_over(lambda message: publishing.buffer(message, timeout))
            return None
        receipts: list[AnyReceipt] = []
        self._hand_over(lambda message: receipts.append(message.start(timeout)))
        return StartedSend(self, receipts[0]) if receipts else None

    def report(self, error: BaseException) -> None:
        """Says that it was accepted and could not be sent."""
        failure_reports.report(self.signal, self.id, error)

    async def amessages(self) -> list[Message]:
        """What is to be handed over, made without blocking the event loop."""
        messages: list[Message] = []
        if self._record is not None:
            self.publish()
        elif self._message is not None:
            messages.append(self._message)
        else:
            # Celery's own publishing may block: not on the event loop's thread.
            await asyncio.to_thread(self._hand_over, messages.append)
        return messages

    def _hand_over(self, take: Callable[[Message], None]) -> None:
        if self._message is not None:
            take(self._message)
            return
        assert self._plan.app is not None
        from .routing import producer

        plan = self._plan
        options = {name: self.options[name] for name in producer.SEND_OPTIONS if self.options.get(name) is not None}
        producer.apply_async(
            plan.app,
            plan.publisher,
            self.signal,
            plan.name,
            self._sender,
            self._named,
            self.id,
            take,
            **options,
        )

    def _run_here(self) -> Sent:
        """Calls the receivers on what a worker would have got (``task_always_eager``)."""
        app, delivery = self._plan.app, propagation.here(self.id, self._plan.name)
        responses: list[propagation.Response] = []
        propagation.run(self.signal, self._sender, self._named, delivery, responses=responses)
        if app is not None and app.conf.task_eager_propagates:
            for _, response in responses:
                if isinstance(response, Exception):
                    raise response
        return Sent(responses, self.id)


class StartedSend:
    """A send that was handed over, and whose outcome is waited for later on."""

    __slots__ = ("_receipt", "_send")

    def __init__(self, send: PendingSend, receipt: AnyReceipt) -> None:
        self._send = send
        self._receipt = receipt

    def settle(self) -> None:
        """Waits for the outcome, and says so if it was not sent."""
        error = publishing.wait(self._receipt)
        if error is not None:
            self._send.report(error)


#: Options that do not change the message itself.
_OF_EVERY_SEND = frozenset({"durability", "on_commit", "database"})


def _of_one_send(options: dict[str, Any]) -> bool:
    """Whether the message differs from every other of its signal."""
    return any(value is not None for name, value in options.items() if name not in _OF_EVERY_SEND)


def _new_id(options: dict[str, Any]) -> str:
    task_id = options.get("task_id")
    if task_id is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(str(task_id)))
    except ValueError:
        raise ValueError(f"task_id is {task_id!r}; use a UUID") from None


def _name_here(signal: AsyncSignal) -> str:
    """The wire name of a signal that needs none, since its receivers run here; empty where there is none."""
    try:
        return signal.name
    except (NoWireName, DuplicateSignalName):
        return ""


async def _aconfirm(message: Message) -> None:
    loop = asyncio.get_running_loop()
    confirmed: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        # Nobody minds if the awaiting task was cancelled, or its loop closed, meanwhile.
        if confirmed.done():
            return
        if error is None:
            confirmed.set_result(None)
        else:
            confirmed.set_exception(error)

    def call_back(error: BaseException | None) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, error)

    receipt = message.start()
    receipt.on_settled(call_back)
    # The core keeps its deadlines itself, unless it has died; Celery's own producer leaves them to who waits.
    native = isinstance(receipt, _native.Receipt)
    try:
        await asyncio.wait_for(confirmed, receipt.timeout + (_SLACK if native else 0))
    except TimeoutError:
        raise SignalNotSent(f"not published within {receipt.timeout:g} s", "deadline", True) from None


async def _abuffer(message: Message) -> None:
    for _ in publishing.attempts():
        try:
            return message.try_buffer()
        except SignalNotSent as error:
            if error.code != "buffer_full":
                raise
            full = error
        await asyncio.sleep(publishing.RETRY_PAUSE)
    raise full


def _warn_not_configured() -> None:
    from .dispatcher import warn_not_configured

    warn_not_configured()
