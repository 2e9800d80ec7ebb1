"""Counts the instructions of the hot paths, of this tree and of an earlier commit, built by the same toolchain.

Usage: instructions.py COMMIT [--json]

Each path is run twice under callgrind, for so many messages and for twice as many: the difference is what the messages
cost. Needs valgrind; with redis-server on the path, Redis is counted, too.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "target" / "instructions"
PATHS = ("background", "confirmed", "worked")
COUNT = 2_000
ENTRY = '\n[[bench]]\nname = "instructions"\npath = "../../benches/instructions.rs"\nharness = false\n'


def say(text: str) -> None:
    print(f"\033[1m==>\033[0m {text}", file=sys.stderr, flush=True)


def checked_out(commit: str) -> Path:
    """The tree of an earlier commit, with this tree's benchmark in it."""
    tree = FOLDER / commit
    if not tree.exists():
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
    shutil.copy(ROOT / "benches" / "instructions.rs", tree / "benches")
    manifest = tree / "crates" / "async-signals" / "Cargo.toml"
    if 'name = "instructions"' not in manifest.read_text():
        manifest.write_text(manifest.read_text().replace("\n[lints]", f"{ENTRY}\n[lints]"))
    return tree


def built(tree: Path) -> str:
    command = ["cargo", "bench", "--package", "celery-async-signals", "--bench", "instructions", "--no-run"]
    target = ["--target-dir", FOLDER / "target", "--message-format", "json"]
    output = subprocess.run([*command, *target], cwd=tree, check=True, capture_output=True, text=True).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    program = next(line["executable"] for line in lines if line.get("target", {}).get("name") == "instructions")
    # The next tree's has the same name.
    return shutil.copy(program, FOLDER / f"instructions-{tree.name}")


def counted(program: str, path: str, count: int, url: str) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, path, str(count), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = re.search(r"Collected : (\d+)", output)
    assert found, output
    return int(found[1])


class Redis:
    """A private server on a free port."""

    def __enter__(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory()
        options = ["--port", str(port), "--save", "", "--dir", self._folder.name, "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return f"redis://127.0.0.1:{port}/0"
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


def per_message(program: str, broker: str, path: str) -> float:
    def run(count: int) -> int:
        if broker == "memory":
            return counted(program, path, count, "memory://counted")
        with Redis() as url:
            return counted(program, path, count, url)

    return (run(2 * COUNT) - run(COUNT)) / COUNT


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: install it with your package manager")
    FOLDER.mkdir(parents=True, exist_ok=True)
    say(f"building {arguments[0]} and this tree")
    before, now = built(checked_out(arguments[0])), built(ROOT)
    brokers = ["memory", *(["redis"] if shutil.which("redis-server") else [])]
    rows = []
    for broker in brokers:
        for path in PATHS:
            say(f"counting: {path} on {broker}")
            counts = [per_message(program, broker, path) for program in (before, now)]
            rows.append({"path": path, "broker": broker, "before": round(counts[0]), "now": round(counts[1])})
    if "--json" in sys.argv:
        print(json.dumps(rows))
        return
    print(f"{'instructions for each message':32}{arguments[0]:>12}{'now':>12}{'ratio':>8}")
    for row in rows:
        ratio = f"{row['now'] / row['before']:.3f}"
        print(f"{row['path'] + ', ' + row['broker']:32}{row['before']:>12,}{row['now']:>12,}{ratio:>8}")


main()
