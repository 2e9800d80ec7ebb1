"""The native half of Async Signals."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, Self, final

class Observer(Protocol):
    """What a publisher tells that no sender waits for. Called on a thread of its own."""

    def lost(self, task_id: str, error: Any) -> None: ...
    def disconnected(self, error: str) -> None: ...
    def reconnected(self) -> None: ...
    def held(self, error: str) -> None: ...

@final
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
    ) -> PreparedMessage: ...
    def follow_up(self, route: dict[str, Any], follow_up: FollowUp) -> PreparedMessage: ...
    def publish_event(
        self,
        exchange: dict[str, Any],
        routing_key: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
        body: bytes,
    ) -> None:
        """Publishes an event, such as Celery's, behind what was sent before. Nobody waits for it; it may be dropped."""
    def start_flush(self, timeout: float) -> Receipt: ...
    @property
    def buffered(self) -> int: ...

@final
class PreparedMessage:
    """A message that is ready to go. Sending it may raise SignalNotSent."""

    @property
    def id(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    def confirm(self) -> None:
        """Sends it and waits until the broker has confirmed it."""
    def start(self, timeout: float | None = None) -> Receipt:
        """Sends it without waiting for the broker's word."""
    def buffer(self) -> None:
        """Puts it into the buffer of background messages, waiting for room if it must."""
    def try_buffer(self) -> None:
        """The same, without any wait for room."""

@final
class Receipt:
    """The promise of an outcome, kept by its deadline. It is waited for once, by either method."""

    @property
    def timeout(self) -> float: ...
    def wait(self) -> BaseException | None: ...
    def on_settled(self, callback: Callable[[BaseException | None], None]) -> None:
        """Calls back once, on the publisher's own thread: the callback must not block."""

class QueueBrowser:
    """A connection to a broker that looks at its queues and takes nothing."""

    def __new__(
        cls,
        urls: list[str],
        *,
        timeout: float,
        transport_options: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
    ) -> Self: ...
    def depth(self, queue: str) -> dict[str, Any] | None:
        """What the broker tells of a queue: `ready`, `in_flight`, `consumers`, `oldest`; None: there is none."""
    def dead_letters(
        self, queue: str, position: int, limit: int, filter: dict[str, Any]
    ) -> tuple[int, list[str], int | None] | None:
        """Looks at up to `limit` messages of a dead-letter queue from a position on; 0 is the oldest.

        Returns how many there were, those that the filter means, each as a JSON text, and the position of the next
        (None: that was all). None: this broker shows messages to nobody but who takes them.
        """
    def close(self) -> None: ...

class DeadLetterQueue:
    """A dead-letter queue whose messages are taken to be replayed or discarded.

    What is taken and neither replayed nor discarded goes back at `close`.
    """

    def __new__(
        cls,
        urls: list[str],
        queue: str,
        *,
        timeout: float,
        max_age: float | None = None,
        transport_options: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
    ) -> Self: ...
    def take(self, limit: int, filter: dict[str, Any]) -> tuple[int, list[str]]:
        """Takes up to `limit` more messages, oldest first.

        Returns how many came, and those of them that the filter means, each as a JSON text. A message's number is its
        place in this list, until the next `take`.
        """
    def replay(self, number: int) -> str:
        """Sends one again and takes it out; returns the queue that it went to.

        ConnectionError: it was sent, and no more can be taken out.
        """
    def discard(self, number: int) -> None:
        """Discards one."""
    def close(self) -> None:
        """Puts back what was neither replayed nor discarded."""

@final
class MessageTemplate:
    def __new__(
        cls,
        publisher: Publisher,
        signal: str,
        *,
        route: dict[str, Any],
        headers: dict[str, Any],
        properties: dict[str, Any],
        max_bytes: int,
        sent_event: dict[str, Any] | None = None,
    ) -> Self:
        """`sent_event`, if given, is the event `task-sent` beside each message.

        Its `exchange`, `routing_key`, `headers` and `properties` are those of the event that Celery made for one
        message, `fields` is that event, `forward_clock` is `app.clock.forward`, and `utcoffset` Celery's function.
        """
    def prepare(self, sender: Any, named: dict[str, Any], parent: tuple[str, str] | None = None) -> PreparedMessage: ...
    def background(self, sender: Any, named: dict[str, Any], parent: tuple[str, str] | None = None) -> str:
        """Encodes one send, buffers it and returns its id. It does not wait for room in a full buffer."""

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
    def delivered_before(self, taken_from: str, most: int) -> FollowUp:
        """What follows because it was taken before and not finished."""
    def failed(self, taken_from: str, failures: list[dict[str, Any]]) -> list[FollowUp]:
        """What follows because receivers failed, each told as `Failure.for_core` does."""
    def paused(self, taken_from: str) -> FollowUp:
        """It, as it waits for somebody to resume it."""
    def dead_letter(self, taken_from: str, kind: str, reason: str) -> FollowUp:
        """It, as it is put into the dead-letter queue."""

@final
class FollowUp:
    """A message that is published in the place of one that was taken."""

    @property
    def dead_letter(self) -> bool:
        """Whether it goes into the dead-letter queue."""
    @property
    def reason(self) -> str | None:
        """Why it goes there, in a sentence."""
    @property
    def kind(self) -> str | None:
        """The same as a word, such as ``ReceiversFailed``."""
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

def drain_events(timeout: float) -> bool:
    """Waits until all that the core told is delivered: to observers, and as records of `logging`; says whether it is.

    The core's log is that of the logger `async_signals.core`. A thread of its own delivers it, so that no send waits
    for a log handler.
    """

def stop_events(timeout: float) -> bool:
    """The same, and none of the core's threads calls Python any more. The interpreter does so itself when it ends."""

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

#: The exit code of a process that left a receiver running: its message went back, or became a dead letter.
LEFT_RUNNING: int

class WorkerObserver(Protocol):
    """What a worker tells beside running receivers. Called on a thread of its own."""

    def connected(self, broker: str) -> None:
        """It reads its queues, at this address (without its password)."""
    def disconnected(self, error: str, transient: bool) -> None:
        """The connection is gone, or could not be made; `transient`: it is tried again."""
    def expired(self, id: str, task: str) -> None:
        """A message expired before it could run."""
    def delayed(self, id: str, task: str, seconds: float) -> None:
        """A message waits for its time."""
    def redelivered(self, id: str, deliveries: int) -> None:
        """A message was taken before and not settled."""
    def dead_lettered(self, id: str, queue: str | None, kind: str, reason: str) -> None:
        """A message is in the dead-letter queue; None: there is none, and it is dropped."""
    def retried(self, id: str, receivers: list[str], seconds: float) -> None:
        """Receivers that failed will be tried again."""
    def hindered(self, id: str, queue: str, error: str) -> None:
        """Something could not be published, and is tried again."""
    def timed_out(self, id: str, task: str, seconds: float) -> None:
        """A message took longer than its hard limit, and the process ends."""

class _Receiver(Protocol):
    @property
    def wants_signals(self) -> bool: ...
    @property
    def task(self) -> Callable[[Any], None]: ...
    def signal(
        self, name: str, sender: Any, named: dict[str, Any], bare: bool, job: Any, /
    ) -> list[dict[str, Any]] | Literal["paused"] | tuple[str, str] | None: ...
    def escaped(self, error: Exception, /) -> None: ...

@final
class Job:
    """A message, and the promise to say what became of it.

    It is ended once, by `done`, `rejected`, `unfinished` or `unfit`: the first
    of them counts. Its attributes hold afterwards too.
    """

    @property
    def id(self) -> str:
        """The task's id."""
    @property
    def task(self) -> str:
        """The task's name."""
    @property
    def headers(self) -> dict[str, Any]:
        """Celery's headers, as they were sent; a new dictionary each time."""
    @property
    def properties(self) -> dict[str, Any]:
        """content_type, content_encoding, correlation_id, reply_to, priority, delivery_mode."""
    @property
    def body(self) -> bytes:
        """The body, as it was sent."""
    @property
    def queue(self) -> str:
        """The queue it was taken from."""
    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def redelivered(self) -> bool:
        """Whether it was taken before and not settled."""
    @property
    def deliveries(self) -> int:
        """How often it was taken before, within this try, and not finished."""
    @property
    def attempt(self) -> int:
        """Which try of its receivers this is, from 1."""
    @property
    def sent_at(self) -> float | None:
        """When it was sent, in seconds since 1970."""
    @property
    def receivers(self) -> list[str] | None:
        """The names of the receivers that it is still for; None: all."""
    def done(self) -> None:
        """It is acknowledged."""
    def rejected(self) -> None:
        """Nobody is to run it: dropped, or handed to the queue's own dead-letter exchange."""
    def unfinished(self) -> None:
        """It goes back into its queue."""
    def unfit(self, kind: str, reason: str) -> None:
        """It cannot be run here, and becomes a dead letter: `kind` for programs, `reason` for people."""

@final
class Worker:
    """Takes messages from the queues of one broker and has their receivers run, in one process.

    `queues` are as in a route's `declare`; `tasks` are the names of the other
    tasks that are run; times are in seconds. `control` is a file descriptor
    that the worker reads and closes: `t` asks it to finish what it has, `q` to
    end at once, and its end is taken for a `t`. `interrupt(ident)` is to
    interrupt a thread if it is the main one, and to say whether it is.
    """

    def __new__(
        cls,
        urls: list[str],
        *,
        queues: list[dict[str, Any]],
        name: str,
        tasks: set[str],
        observer: WorkerObserver,
        interrupt: Callable[[int], bool],
        timeout: float,
        stop_timeout: float,
        least_prefetch: int,
        most_prefetch: int,
        max_deliveries: int,
        paused_queue: str,
        dead_letters: str | None = None,
        dead_letter_arguments: dict[str, Any] | None = None,
        startup_rounds: int | None = None,
        transport_options: dict[str, Any] | None = None,
        tls: dict[str, Any] | None = None,
        heartbeat: float | None = None,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        max_messages: int | None = None,
        control: int | None = None,
    ) -> Self: ...
    def start(self) -> None:
        """Connects and takes messages, from now on."""
    def run(self, receiver: _Receiver, main: bool = False) -> None:
        """Runs messages in the calling thread until the worker ends. Raises what a receiver raised to end the process.

        `receiver.signal(name, sender, named, bare, job)` returns None, a list
        of failures, or `(kind, reason)` for what cannot be run here; `bare`:
        sender and arguments hold no references.
        """
    def stop(self, timeout: float | None = None) -> None:
        """Takes nothing new, and ends when it has finished what it has; after `timeout` the rest goes back."""
    def stop_now(self) -> None:
        """Ends at once; what is not finished goes back into its queues."""
    def join(self) -> None:
        """Waits until it has ended. Raises what the broker said that trying again does not mend."""
    def limit(self, soft: float | None = None, hard: float | None = None) -> None:
        """Holds the job of the calling thread to other limits from now on; None: to those of the worker."""
    def unlimit(self) -> None:
        """Holds the job of the calling thread to no limits any more."""
    def take_overdue(self) -> bool:
        """Whether the calling thread has just passed its soft limit; says so once."""
    @property
    def begun(self) -> int:
        """How many messages were begun."""
    def running(self) -> list[tuple[Job, float]]:
        """What runs just now, and since when, in seconds since 1970."""
