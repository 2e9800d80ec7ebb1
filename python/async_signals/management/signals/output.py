"""What the subcommands print: tables for people, JSON for scripts, progress beside both."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: How many rows a table waits for, to know how wide its columns are. The others are printed as they come.
_MEASURED = 100
#: What stands between two columns.
_GAP = "  "


class Output:
    """The command's standard output and standard error.

    Arguments:
        stdout, stderr: As Django's commands have them.
    """

    def __init__(self, stdout: Any, stderr: Any) -> None:
        self._stdout = stdout
        self._stderr = stderr

    def line(self, text: str = "") -> None:
        """Prints a line."""
        self._stdout.write(text)

    def note(self, text: str) -> None:
        """Says something beside the answer."""
        # Django's stderr is for errors, and red.
        self._stderr.write(text, style_func=lambda text: text)

    def flush(self) -> None:
        """Has what was printed be seen."""
        self._stdout.flush()

    def json(self, value: Any, indent: int | None = None) -> None:
        """Prints a value as JSON, in one line unless it is indented."""
        self._stdout.write(json.dumps(value, indent=indent, ensure_ascii=False, default=str))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[Any]], nothing: str) -> int:
        """Prints a table, its first rows as soon as they are there; returns how many rows there were.

        Arguments:
            nothing: What is said where there are no rows.
        """
        rows = iter(rows)
        first = [_cells(row) for row in itertools.islice(rows, _MEASURED)]
        if not first:
            self.line(nothing)
            return 0
        lines = [tuple(headings), *first]
        widths = [max(len(line[column]) for line in lines) for column in range(len(headings) - 1)]
        room = self._room_for_last(widths)
        printed = 0
        for line in itertools.chain(lines, map(_cells, rows)):
            last = line[-1] if room is None or len(line[-1]) <= room else line[-1][: room - 1] + "…"
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            self.line(_GAP.join([*cells, last]).rstrip())
            printed += 1
        return printed - 1

    def _room_for_last(self, widths: list[int]) -> int | None:
        """How wide the last column may be; None where nobody looks on."""
        if not self._stdout.isatty():
            return None
        return max(20, shutil.get_terminal_size().columns - sum(widths) - len(_GAP) * len(widths))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Progress]:
        """Shows how far something has come, on the standard error of a terminal."""
        progress = Progress(self._stderr, what, total)
        try:
            yield progress
        finally:
            progress.end()

    @contextmanager
    def until_nobody_reads(self) -> Iterator[None]:
        """Ends in silence when the reader of the output has gone, as ``head`` does."""
        try:
            yield
            self._stdout.flush()
        except BrokenPipeError:
            # Python flushes once more as it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


class Progress:
    """A count that goes up, and is drawn over itself.

    Arguments:
        stream: Where it is drawn; nothing is drawn where that is no terminal.
        what: What is done.
        total: How many there are.
    """

    def __init__(self, stream: Any, what: str, total: int) -> None:
        self._stream = stream if stream.isatty() else None
        self._what = what
        self._total = total
        self._done = 0
        self._drawn = False

    def advance(self, count: int) -> None:
        """So many more."""
        self._done += count
        if self._stream is not None:
            self._drawn = True
            self._stream.write(f"\r{self._what}: {self._done:,} of {self._total:,}", ending="")
            self._stream.flush()

    def end(self) -> None:
        """Leaves the line."""
        if self._drawn and self._stream is not None:
            self._stream.write("\r\x1b[K", ending="")
            self._stream.flush()


def one_line(text: str) -> str:
    """A text that anybody may have written, as one line that a terminal takes for nothing but text."""
    return "".join(character if character.isprintable() else "�" for character in " ".join(text.split()))


def _cells(row: Sequence[Any]) -> tuple[str, ...]:
    return tuple("-" if cell is None else one_line(str(cell)) for cell in row)
