"""What can go wrong, and the warnings."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

try:
    from kombu.exceptions import OperationalError as _OperationalError
except ImportError:  # Celery is not installed: signals run where they are sent.
    _OperationalError = Exception


class CeleryNotConfigured(UserWarning):
    """No Celery app has a broker, so that receivers run where the signal is sent."""


class UndeclaredArgument(UserWarning):
    """A signal is sent with an argument that its providing_args do not name."""


class AsyncSignalsDeprecationWarning(DeprecationWarning):
    """A name of an earlier version is used; the message says which one has taken its place."""


class SignalNotSent(_OperationalError):
    """The signal was not handed over to Celery.

    Attributes:
        code: Why, as a word: ``deadline``, ``buffer_full``, ``unreachable``,
            ``authentication``, ``tls``, ``blocked``, ``unroutable``,
            ``precondition_failed``, ``access_refused``, ``queue_full``, ``queue_missing``,
            ``out_of_memory``, ``refused``, ``paused``, ``closed`` or ``celery``.
        may_have_arrived: Whether the broker may have it all the same: the
            connection broke, or time ran out, before it could say so.
    """

    def __init__(self, message: str, code: str = "refused", may_have_arrived: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.may_have_arrived = may_have_arrived


class BrokerMisconfigured(SignalNotSent, ImproperlyConfigured):
    """Celery's broker settings cannot be right."""


class NoWireName(TypeError):
    """A signal has no name under which a worker could find it."""


class DuplicateSignalName(ValueError):
    """Two different signals have one name."""


class ReceiversFailed(Exception):
    """Receivers of a signal failed in a worker. Each failure is in the log."""


class DeadLettered(Exception):
    """A worker could not run a message, and has put it into the dead-letter queue."""
