"""The native half of Async Signals."""

from collections.abc import Callable
from typing import Any, Protocol, final

from typing_extensions import Self

class Observer(Protocol):
    def lost(self, task_id: str, error: Any) -> None: ...
    def disconnected(self, error: str) -> None: ...
    def reconnected(self) -> None: ...

class Publisher:
    def __new__(
        cls,
        urls: list[str],
        *,
        observer: Observer,
        timeout: float,
        buffer_size: int,
        buffer_timeout: float,
        transport_options: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
        heartbeat: float | None = None,
    ) -> Self: ...
    def message(
        self, route: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any], body: bytes
    ) -> Prepared: ...
    def follow(self, route: dict[str, Any], follow: Follow) -> Prepared: ...
    def confirm_all(self, messages: list[Prepared], timeout: float) -> list[BaseException | None]: ...
    def flush(self, timeout: float) -> None: ...
    @property
    def buffered(self) -> int: ...

class Prepared:
    @property
    def id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    def confirm(self) -> None: ...
    def confirm_later(self, callback: Callable[[BaseException | None], None]) -> None: ...
    def buffer(self) -> None: ...
    def try_buffer(self) -> None: ...

class Outlet:
    def __new__(
        cls,
        publisher: Publisher,
        signal: str,
        *,
        route: dict[str, Any],
        headers: dict[str, Any],
        properties: dict[str, Any],
        max_bytes: int,
    ) -> Self: ...
    def prepare(self, sender: Any, named: dict[str, Any], parent: tuple[str, str] | None = None) -> Prepared: ...
    def background(self, sender: Any, named: dict[str, Any], parent: tuple[str, str] | None = None) -> str: ...

class Incoming:
    """A message as Celery handed it over. `taken_from` is the queue that it was taken from, as Celery knows it."""

    def __new__(
        cls, headers: dict[str, Any], properties: dict[str, Any], exchange: str, routing_key: str, body: bytes
    ) -> Self: ...
    def own_queue(self, taken_from: str) -> str:
        """The queue that it was sent to."""
    @property
    def attempt(self) -> int:
        """Which try of its receivers this is, from 1."""
    @property
    def deliveries(self) -> int:
        """How often it was taken before, within this try, and not finished."""
    @property
    def sent_at(self) -> float | None:
        """When it was sent, in seconds since 1970."""
    @property
    def receivers(self) -> frozenset[str] | None:
        """The names of the receivers that it is still for; None: all."""
    def delivered_before(self, taken_from: str, most: int) -> Follow:
        """What follows because it was taken before and not finished."""
    def failed(self, taken_from: str, failures: list[dict[str, Any]]) -> list[Follow]:
        """What follows because receivers failed, each told as `Failure.for_core` does."""
    def park(self, taken_from: str, kind: str, reason: str) -> Follow:
        """It, as it is put into the dead-letter queue."""

@final
class Follow:
    """A message that is published in the place of one that was taken."""

    @property
    def parked(self) -> bool:
        """Whether it goes into the dead-letter queue."""
    @property
    def reason(self) -> str | None:
        """Why it is parked, in a sentence."""
    @property
    def eta(self) -> str | None:
        """Before when it does not run, as Celery writes it."""
    @property
    def receivers(self) -> list[str] | None:
        """The names of the receivers that it is for; None: all."""
    @property
    def headers(self) -> str:
        """Its headers, as JSON."""
    @property
    def properties(self) -> str:
        """Its properties, as JSON."""
    @property
    def body(self) -> bytes: ...

class MalformedMessage(ValueError):
    """A message that is no task of Celery's."""

class Reference:
    """What stands for a value until it is resolved: `[kind, …]`, as it was sent."""

    def __new__(cls, value: Any) -> Self: ...
    @property
    def value(self) -> Any:
        """What was sent: a list that begins with the kind."""
    @property
    def kind(self) -> str | None:
        """What is stood for ("model", "class", …); None for what nobody can know."""

@final
class SenderRef(Reference):
    """A sender that is not known in this process.

    A class that nobody has imported here, a member of such an enum, or a
    model's row that is gone. It still matches whatever receivers are connected
    to under the same label.
    """

    def __new__(cls, value: Any) -> SenderRef: ...
    @property
    def label(self) -> str:
        """What it is called.

        `module.qualified_name` of a class, `app.Model` of a model or its row,
        `module.qualified_name.MEMBER` of an enum's member.
        """

class _Lookup(Protocol):
    def model(self, label: str) -> Any: ...
    def row(self, model: Any, pk: Any, using: str | None) -> Any: ...

def encode_body(signal: str, sender: object, kwargs: dict[str, Any], max_bytes: int = 1048576) -> bytes:
    """The body of a signal's task as JSON.

    TypeError names an argument that cannot be sent by its path, ValueError one
    that is NaN, too deep or too big.
    """

def encode_sender(sender: object) -> bytes:
    """The sender as JSON, as it stands in a task's arguments."""

def before_fork() -> None:
    """Closes what a forked process must not inherit: the files of the SQLite broker."""

def after_fork_in_parent() -> None:
    """Lets them be opened again."""

def after_fork_in_child() -> None:
    """Lets them be opened again, in a process that has no other threads."""

def sender_label(sender: object) -> bytes | None:
    """A sender's label.

    Two senders match if they are identical or their labels are equal, and
    labels are equal exactly if the senders are equal on the wire (so 1 and True
    differ). None for a sender that has none (None itself, and whatever cannot
    be sent): it matches by identity only.
    """

def decode_body(body: bytes) -> tuple[list[Any], dict[str, Any], Any]:
    """What a body of `[args, kwargs, embed]` holds. Nothing is looked up.

    MalformedMessage for whatever kombu or a stock worker would refuse, and for
    NaN and lone surrogates, which JSON has not.
    """

def resolve(value: Any, lookup: _Lookup) -> Any:
    """A decoded value with the real values in place of the stand-ins.

    UnresolvableReference names what is not known here, MissingRow a row that is
    gone.
    """

def resolve_call(sender: Any, kwargs: dict[str, Any], lookup: _Lookup) -> tuple[Any, dict[str, Any]]:
    """The sender and the arguments of one message, as `resolve` does.

    The same row in both is the same object. A sender that is not known here
    becomes a SenderRef.
    """
