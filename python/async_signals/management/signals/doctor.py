"""Find out what keeps signals from their receivers, and what mends it.

It reads the settings, connects to the broker, sends itself a signal through it and takes it out again, looks at the
queues, asks the workers, and looks into the dead letters. Exit code 1 says that signals do not get through.
"""

from __future__ import annotations

import dataclasses
import sys
from argparse import ArgumentParser
from typing import Any

from async_signals.inspection.diagnosis import Finding, diagnose

from .output import Output, one_line

_MARKS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds what it takes."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON, one finding a line.")


def run(output: Output, *, as_json: bool, **_: Any) -> None:
    """Prints each finding as soon as it is there."""
    errors = warnings = 0
    for finding in diagnose():
        errors += finding.level == "error"
        warnings += finding.level == "warning"
        if as_json:
            output.json(dataclasses.asdict(finding))
        else:
            _print(output, finding)
    if not as_json:
        output.line()
        output.line(
            "Signals get through."
            if not errors
            else f"Signals do not get through: {errors} {'error' if errors == 1 else 'errors'}."
        )
        if warnings:
            output.line(f"{warnings} {'warning' if warnings == 1 else 'warnings'}.")
    if errors:
        sys.exit(1)


def _print(output: Output, finding: Finding) -> None:
    output.line(f"{_MARKS[finding.level]:<8} {finding.what}: {one_line(finding.text)}")
    if finding.cure is not None:
        output.line(f"{'':<8} -> {finding.cure}")
