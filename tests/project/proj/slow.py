"""An `on_failure` that takes as long as a test wants, and raises then."""

import threading
from typing import Any

called = threading.Event()
go_on = threading.Event()


def on_failure(signal: Any, task_id: str, error: Any) -> None:
    called.set()
    go_on.wait(30)
    raise RuntimeError("on_failure has failed")
