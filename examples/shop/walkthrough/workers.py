"""The two workers that can run the shop's receivers."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """How a kind of worker is started, and the words in its log that say it is ready, or never will be."""

    command: str
    ready: str
    hopeless: str

    def arguments(self, *queues: str, level: str = "INFO") -> list[str]:
        """For this Python, whatever ``PATH`` says."""
        program, *arguments = self.described(*queues, level=level).split()
        return [sys.executable, "-m", program.replace("-", "_"), *arguments]

    def described(self, *queues: str, level: str = "INFO") -> str:
        """What one would type."""
        return self.command.format(queues=",".join(queues), level=level)


WORKERS = {
    "async-signals": Worker(
        command="async-signals -A shop_site worker -Q {queues} --concurrency 2 -l {level}",
        ready=r"\bready\.",
        hopeless=r"No connection to the broker",
    ),
    "celery": Worker(
        command="celery -A shop_site worker -Q {queues} --concurrency 2 -l {level}",
        ready=r"\bready\.",
        hopeless=r"Cannot connect to|Unrecoverable error",
    ),
}
