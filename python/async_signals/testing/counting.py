"""How many messages are in which queue of a SQLite broker that the core has open in this very process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: How long it may take to end, in seconds.
_PATIENCE = 10.0
#: Tells for each line that it reads how many messages are in which queue, also those that are being run. In a process
#: of its own: the core has the file open, and two SQLite libraries in one process would destroy it.
_PROGRAM = """
import json, sqlite3, sys
from contextlib import closing
for _ in sys.stdin:
    found = []
    try:
        with closing(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=5)) as database:
            found = database.execute(
                "SELECT q.name, COUNT(*) FROM kombu_message m JOIN kombu_queue q ON q.id = m.queue_id GROUP BY q.name"
            ).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error) and "unable to open" not in str(error):
            raise
    print(json.dumps(dict(found)), flush=True)
"""


class MessageCounter:
    """Counts the messages of a broker, also those that are being run and those that wait for their time.

    Arguments:
        path: The broker's file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def count(self) -> dict[str, int]:
        """By queue; those that are empty are not told."""
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None
        assert answers is not None
        asks.write("\n")
        asks.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError("the process that counts messages has ended")
        found: dict[str, int] = json.loads(answer)
        return found

    def close(self) -> None:
        """Ends its process."""
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
