"""What a worker was asked for: its flags, and the app's settings where there is no flag."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

from celery import Celery


@dataclasses.dataclass(frozen=True)
class Options:
    """How a worker works. Times are in seconds.

    Attributes:
        hostname: The worker's name.
        queues: The queues that it reads; none: all that the app has.
        exclude_queues: Those that it does not.
        concurrency: How many processes.
        threads: How many threads in each.
        loglevel: From which level on there is a log.
        logfile: Where it goes; None: to the standard error.
        task_events: Whether events of tasks are sent from the start.
        max_tasks_per_child: After how many messages a process is replaced; None: never.
        time_limit: After which its process ends with a message.
        soft_time_limit: After which a receiver gets an exception.
        prefetch: How many messages a process takes ahead of slow receivers.
        pidfile: The file that holds the parent's process id.
        heartbeat: Whether monitors are told that it is there.
        stop_timeout: How long a stop waits for receivers.
        startup_rounds: How often the broker is tried before the worker gives up; None: for ever.
    """

    hostname: str
    queues: tuple[str, ...]
    exclude_queues: tuple[str, ...]
    concurrency: int
    threads: int
    loglevel: int
    logfile: str | None
    task_events: bool
    max_tasks_per_child: int | None
    time_limit: float | None
    soft_time_limit: float | None
    prefetch: int
    pidfile: str | None
    heartbeat: bool
    stop_timeout: float
    startup_rounds: int | None

    @classmethod
    def of(cls, app: Celery, flags: dict[str, Any]) -> Options:
        """The flags of the command, with the app's settings for those that were not given.

        Arguments:
            flags: By the names of the attributes; None where a flag was not given.
        """
        conf = app.conf
        threads = flags["threads"]
        given: dict[str, Any] = {
            "concurrency": _concurrency(conf.worker_concurrency),
            "task_events": bool(conf.worker_send_task_events),
            "max_tasks_per_child": conf.worker_max_tasks_per_child,
            "time_limit": conf.task_time_limit,
            "soft_time_limit": conf.task_soft_time_limit,
        }
        multiplier = flags.pop("prefetch_multiplier")
        if multiplier is None:
            multiplier = conf.worker_prefetch_multiplier
        for name, value in given.items():
            if flags[name] is None:
                flags[name] = value
        return cls(**flags, prefetch=int(multiplier) * threads or _UNBOUNDED, startup_rounds=_startup_rounds(conf))


#: What a prefetch multiplier of 0 asks for: as many as there are. This many hide any round trip.
_UNBOUNDED = 512


def _concurrency(setting: Any) -> int:
    """``worker_concurrency``: a number, also as text; else one process for each processor."""
    try:
        number = int(setting or 0)
    except ValueError:  # "auto"
        number = 0
    if number > 0:
        return number
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 2


def _startup_rounds(conf: Any) -> int | None:
    retry = conf.broker_connection_retry_on_startup
    if not (conf.broker_connection_retry if retry is None else retry):
        return 1
    return int(conf.broker_connection_max_retries or 0) or None


def level(name: str) -> int:
    """The number of a level that a flag named."""
    return int(logging.getLevelName(name.upper()))
