"""``AsyncSignal``: a Django signal whose receivers run in a worker."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from django.dispatch import Signal
from django.dispatch.dispatcher import logger

from . import interceptors, names, retries, sending, settings
from .errors import CeleryNotConfigured, UndeclaredArgument
from .once import check_installed
from .receivers import DEFAULT_OPTIONS, NamedReceiver, Receiver, ReceiverOptions, ReceiverRegistry, receiver_name
from .references import OnMissing
from .senders import SenderCache, SenderKeys
from .sending import Sent
from .weak_receivers import WeakReceivers

if TYPE_CHECKING:
    from .routing import SendPlan

Choice = TypeVar("Choice", bound=str)

_ON_MISSING: tuple[OnMissing, ...] = ("raise", "skip", "none")


class AsyncSignal(Signal):
    """A signal that is sent through Celery: one send is one task, and a worker calls the receivers.

    Everything about receivers (connect, disconnect, weak references, ...) is
    ``django.dispatch.Signal``'s own.

    Arguments:
        providing_args: The names of the arguments that are sent along. Sending another one warns.
        queue: The Celery queue for the signal's tasks; Celery's default queue if None.
        name: The name by which workers know the signal; ``module.variable`` if None.
        aliases: Older names, which are still received.
        use_caching: Django's: keep the receivers of each sender.
        strict: Makes sending an argument that providing_args do not name a TypeError.
        durability: ``"confirmed"`` returns when the broker has the message, ``"background"`` when it is buffered.
        on_commit: Whether a send inside a transaction waits for the commit.
        priority: The priority of the signal's tasks, 0 to 255 (0 to 9 on Redis).
        expires: After how many seconds a worker leaves the signal alone.
        on_missing: What a worker does about a model instance that is gone by then: ``"raise"`` dead-letters the
            message, ``"skip"`` calls no receiver, ``"none"`` passes None.
        retry: How a worker tries receivers again that failed, for those that do not say:
            ``{"max": 5, "base": 1, "factor": 2, "cap": 3600, "jitter": True, "on": (ConnectionError,)}``.
            Only ``max`` must be given. None: not at all.
        when_paused: What becomes of sends while the signal or its queue is paused: ``"keep"`` has them wait in a queue,
            ``"refuse"`` raises SignalNotSent; the setting's if None.
    """

    def __init__(
        self,
        providing_args: Iterable[str] | None = None,
        queue: str | None = None,
        *,
        name: str | None = None,
        aliases: Iterable[str] = (),
        use_caching: bool = False,
        strict: bool = False,
        durability: str | None = None,
        on_commit: bool | None = None,
        priority: int | None = None,
        expires: float | None = None,
        on_missing: str = "raise",
        retry: Mapping[str, Any] | None = None,
        when_paused: str | None = None,
    ) -> None:
        super().__init__(use_caching=use_caching)
        self.retry = retries.read(retry)
        self._registry = ReceiverRegistry(self)
        self._keys = SenderKeys(self)
        self._weak_receivers = WeakReceivers()
        if use_caching:
            self.sender_receivers_cache = SenderCache(self._keys)
        self.providing_args = None if providing_args is None else frozenset(_names(providing_args))
        self.queue = _queue_name(queue)
        self.aliases = tuple(aliases)
        self.strict = strict
        self.priority = _number("priority", priority, 0, 255)
        self.expires = expires if expires is None else _seconds("expires", expires)
        self.on_missing: OnMissing = _one_of("on_missing", on_missing, _ON_MISSING)
        self.durability = None if durability is None else _durability(durability)
        self.on_commit = on_commit
        self.when_paused = None if when_paused is None else _one_of("when_paused", when_paused, settings.WHEN_PAUSED)
        self._name = name
        self._definition = names.Definition.of_caller(self)
        self._plans: dict[Any, SendPlan] = {}
        if strict and self.providing_args is None:
            raise TypeError("strict=True needs providing_args: the names that may be sent")
        names.register(self)

    @property
    def name(self) -> str:
        """The wire name. Raises NoWireName where there is none."""
        return names.name_of(self)

    def __set_name__(self, owner: type, attribute: str) -> None:
        name = names.attribute_of(owner, attribute)
        if name is not None:
            names.named(self, name)

    def __repr__(self) -> str:
        return f"<AsyncSignal {self._name or f'made at {self._definition}'}>"

    def __setattr__(self, name: str, value: Any) -> None:
        # Whoever takes all receivers away, as factory_boy's mute_signals does, mutes the signal. Not a property, which
        # would cost something at each send.
        if name == "receivers" and "_registry" in vars(self):
            registry = self._registry
            registry.set_aside = interceptors.receivers_replaced(self, self.receivers, value, registry.set_aside)
            self._weak_receivers.forget_dropped([*value, *registry.set_aside])
        super().__setattr__(name, value)

    # Receivers: Django's own code, with senders told apart by their labels too.

    def connect(
        self,
        receiver: Receiver,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
        *,
        retry: Mapping[str, Any] | Literal[False] | None = None,
        once: bool = False,
    ) -> None:
        """Connects a receiver, as ``django.dispatch.Signal.connect`` does.

        A message names a receiver by its ``dispatch_uid``, if that is a str, else by its module and name.

        Arguments:
            retry: The receiver's retries, as the signal's; None: the signal's; False: none.
            once: Whether a message that comes again has no second effect: what the receiver writes to the
                database of ``async_signals``' own table is committed together with the note that it ran.

        Raises:
            ImproperlyConfigured: ``once`` needs ``"async_signals"`` in ``INSTALLED_APPS``.
            TypeError, ValueError: ``retry`` cannot be right.
        """
        options = ReceiverOptions(retry if retry is False else retries.read(retry), once)
        if once:
            check_installed()
        key = self._keys.for_connect(sender)
        super().connect(receiver, key, weak, dispatch_uid)
        self._keys.keep(key)
        if weak:
            self._weak_receivers.note(receiver, key, dispatch_uid, self.receivers)
        if options != DEFAULT_OPTIONS:
            self._registry.keep_options(receiver, key, dispatch_uid, options)

    def disconnect(self, receiver: Receiver | None = None, sender: Any = None, dispatch_uid: Any = None) -> bool:
        """Disconnects a receiver, as ``django.dispatch.Signal.disconnect`` does."""
        key = self._keys.for_lookup(sender)
        disconnected = super().disconnect(receiver, key, dispatch_uid)
        self._weak_receivers.forget(receiver, key, dispatch_uid)
        self._keys.release()
        self._registry.forget_disconnected()
        return disconnected

    def _receiver_names(self, sender: Any, live: list[Receiver], asynchronous: bool) -> list[NamedReceiver]:
        """The live receivers of a sender by their names in messages, in their order, with their options."""
        return self._registry.names(self._keys.for_lookup(sender), live, asynchronous)

    def _connected_receivers(self) -> list[Receiver]:
        """Every live receiver, whichever senders it is for, in the order in which they were connected."""
        return self._registry.live()

    def _live_receivers(self, sender: Any) -> Any:
        return super()._live_receivers(self._keys.for_lookup(sender))

    def _log_robust_failure(self, receiver: Receiver, err: Exception) -> None:
        # Django asks for __qualname__, which functools.partial and callable instances lack.
        logger.error("Error calling %s in Signal.send_robust() (%s)", receiver_name(receiver), err, exc_info=err)

    # Sending.

    def send(self, sender: Any, **named: Any) -> Sent:
        """Sends the signal: one Celery task, which calls the receivers in a worker.

        Without a configured Celery the receivers are called here, as Django would.

        Arguments:
            sender: Who sends: None, a str, int, enum member, class, model or model instance.
            named: What the receivers are called with.

        Returns:
            A list of ``(receiver, response)`` pairs, empty when the signal went to Celery, with the task's ``id``.

        Raises:
            SignalNotSent: It was not handed over.
            TypeError: Something in it cannot be sent; the message says what.
        """
        return sending.send(self, sender, named, _NO_OPTIONS, robust=False)

    def send_robust(self, sender: Any, **named: Any) -> Sent:
        """The same; receivers that are called here do not stop one another by failing."""
        return sending.send(self, sender, named, _NO_OPTIONS, robust=True)

    async def asend(self, sender: Any, **named: Any) -> Sent:
        """As ``send``, without blocking the event loop and without waiting for a transaction."""
        return await sending.asend(self, sender, named, _NO_OPTIONS, robust=False)

    async def asend_robust(self, sender: Any, **named: Any) -> Sent:
        """As ``send_robust``, without blocking the event loop and without waiting for a transaction."""
        return await sending.asend(self, sender, named, _NO_OPTIONS, robust=True)

    def options(
        self,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        task_id: str | UUID | None = None,
        durability: str | None = None,
        on_commit: bool | None = None,
        database: str | None = None,
    ) -> SignalOptions:
        """The signal with options for one send: ``signal.options(countdown=30).send(...)``.

        Arguments:
            countdown: Seconds until receivers may run.
            eta: The time until which receivers wait.
            expires: Seconds, or the time, after which a worker leaves it alone.
            priority: As the signal's.
            queue: As the signal's.
            task_id: The task's id, a UUID.
            durability: As the signal's.
            on_commit: As the signal's.
            database: The alias of the database whose transaction counts.
        """
        given = {
            "countdown": countdown,
            "eta": eta,
            "expires": expires,
            "priority": _number("priority", priority, 0, 255),
            "queue": _queue_name(queue),
            "task_id": task_id,
            "durability": None if durability is None else _durability(durability),
            "on_commit": on_commit,
            "database": database,
        }
        return SignalOptions(self, {name: value for name, value in given.items() if value is not None})

    def _celery_options(self) -> dict[str, Any]:
        options = {"queue": self.queue, "priority": self.priority, "expires": self.expires}
        return {option: value for option, value in options.items() if value is not None}

    def _check_arguments(self, named: dict[str, Any]) -> None:
        declared = self.providing_args
        if declared is None or named.keys() <= declared:
            return
        unknown = ", ".join(repr(name) for name in named if name not in declared)
        text = (
            f"{self!r} is sent with {unknown}, which its providing_args do not name "
            f"({', '.join(sorted(declared)) or 'they name nothing'})"
        )
        if self.strict:
            raise TypeError(text)
        warnings.warn(text, UndeclaredArgument, stacklevel=caller_level())


class SignalOptions:
    """A signal with options for the sends that are made through it."""

    __slots__ = ("_options", "_signal")

    def __init__(self, signal: AsyncSignal, options: dict[str, Any]) -> None:
        self._signal = signal
        self._options = options

    def send(self, sender: Any, **named: Any) -> Sent:
        """As ``AsyncSignal.send``."""
        return sending.send(self._signal, sender, named, self._options, robust=False)

    def send_robust(self, sender: Any, **named: Any) -> Sent:
        """As ``AsyncSignal.send_robust``."""
        return sending.send(self._signal, sender, named, self._options, robust=True)

    async def asend(self, sender: Any, **named: Any) -> Sent:
        """As ``AsyncSignal.asend``."""
        return await sending.asend(self._signal, sender, named, self._options, robust=False)

    async def asend_robust(self, sender: Any, **named: Any) -> Sent:
        """As ``AsyncSignal.asend_robust``."""
        return await sending.asend(self._signal, sender, named, self._options, robust=True)


_NO_OPTIONS: dict[str, Any] = {}


def caller_level() -> int:
    """The stacklevel of the first frame outside this package, for ``warnings.warn`` one frame up."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame = frame.f_back
        level += 1
    return level


def warn_not_configured() -> None:
    """Says once for each place of the program that its signals run where they are sent."""
    warnings.warn(
        "Celery is not configured: no Celery app has a broker_url, so the receivers run here, synchronously; "
        "set broker_url in Celery's settings, or ASYNC_SIGNALS['app'] to the app that has one",
        CeleryNotConfigured,
        stacklevel=caller_level(),
    )


def _queue_name(queue: Any) -> str | None:
    if queue is not None and not (isinstance(queue, str) and queue):
        raise TypeError(f"queue must be the name of a Celery queue, not {queue!r}")
    return queue


def _names(providing_args: Iterable[str]) -> list[str]:
    if isinstance(providing_args, str):
        raise TypeError(f"providing_args must be several names: write ({providing_args!r},)")
    given = list(providing_args)
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"providing_args holds names, not {name!r}")
    return given


def _durability(value: Any) -> str:
    if value == "outbox":
        raise ValueError(
            'durability="outbox" does not exist yet; use "confirmed", which is sent after the commit of a transaction'
        )
    return _one_of("durability", value, settings.DURABILITIES)


def _one_of(option: str, value: Any, choices: tuple[Choice, ...]) -> Choice:
    if value not in choices:
        raise ValueError(f"{option} is {value!r}; use one of {', '.join(map(repr, choices))}")
    return choices[choices.index(value)]


def _number(option: str, value: Any, lowest: int, highest: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"{option} is {value!r}; use a whole number from {lowest} to {highest}")
    return value


def _seconds(option: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ValueError(f"{option} is {value!r}; use a number of seconds above 0")
    return value
