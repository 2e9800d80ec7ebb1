"""Prints what ran against what, and how long it took: tested.py FOLDER, where the logs of cargo and pytest are."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

BROKERS = ("redis", "rabbitmq", "sqlite")
ALONE = "-"
VERSIONS = ("Python", "Django", "Celery", *BROKERS)
COLUMNS = (*BROKERS, ALONE)
Table = dict[str, dict[str, Counter[str]]]


def main() -> None:
    folder = Path(sys.argv[1])
    table: Table = defaultdict(lambda: defaultdict(Counter))
    versions = pytest_results(folder / "pytest.xml", table)
    cargo_results(folder / "cargo.log", table)

    print("\nwhat ran against what" + (f" ({versions})" if versions else ""))
    heads = ("", *("without a broker" if column == ALONE else column for column in COLUMNS))
    rows = [(name, *(cell(table[name][column]) for column in COLUMNS)) for name in sorted(table)]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(how_long(folder / "phases"))


def cell(counts: Counter[str]) -> str:
    """What became of the tests, in words."""
    words = [f"{counts[outcome]} {outcome}" for outcome in ("ok", "failed", "skipped") if counts[outcome]]
    return ", ".join(words) or "."


def column_of(text: str) -> str:
    return next((broker for broker in BROKERS if broker in text), ALONE)


def how_long(phases: Path) -> str:
    """The phases of the run, as `timed.sh` wrote them down, and all of it."""
    lines = phases.read_text().splitlines() if phases.exists() else []
    took = [(name, int(seconds)) for seconds, name in (line.split(maxsplit=1) for line in lines)]
    took.append(("all of it", sum(seconds for _, seconds in took)))
    words = [f"{name} {seconds // 60}:{seconds % 60:02}" for name, seconds in took]
    return f"\nhow long it took (minutes:seconds): {', '.join(words)}\n" if lines else ""


def pytest_results(report: Path, table: Table) -> str:
    """Reads pytest's report into the table; returns the versions it names."""
    if not report.exists():
        return ""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcome = "ok"
        for element in case:
            outcome = {"failure": "failed", "error": "failed", "skipped": "skipped"}.get(element.tag, outcome)
        file = case.get("classname", "").split(".Test")[0].replace(".", "/") + ".py"
        properties = [(item.get("name", ""), item.get("value", "")) for item in case.iter("property")]
        for column in [value for name, value in properties if name == "broker"] or [ALONE]:
            table[file][column][outcome] += 1
        found.update(properties)
    return ", ".join(f"{name} {found[name]}" for name in VERSIONS if name in found)


def cargo_results(log: Path, table: Table) -> None:
    """Reads what cargo printed into the table."""
    suite = ""
    for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
        if started := re.match(r"\s*(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))", line):
            suite = started[1] or f"doc-tests of {started[2]}"
        elif ran := re.match(r"test (\S+)(?: .*)? \.\.\. (ok|FAILED|ignored)", line):
            outcome = {"ok": "ok", "FAILED": "failed", "ignored": "skipped"}[ran[2]]
            table[f"cargo {suite}"][column_of(f"{suite} {ran[1]}")][outcome] += 1


if __name__ == "__main__":
    main()
