"""A router that the settings name."""

from typing import Any


def by_signal(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> dict[str, str] | None:
    """Gives each signal a queue of its own name."""
    return {"queue": args[0]} if name == "async_signals.propagate" else None


def nothing(name: str, *_: Any, **__: Any) -> None:
    """Leaves every task to the default queue, as many routers do with what they do not know."""
