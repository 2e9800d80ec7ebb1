"""The documents: what they show is run, what they list is there, and where they point something is."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from async_signals.settings import Settings
from servers.process import Process
from servers.redis import RedisServer

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "examples/*/*.md", "crates/*/*.md") for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """The code in a document that is of one language."""
    return [text for kind, text in BLOCK.findall(document.read_text()) if kind == language]


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
class TestEveryDocument:
    def test_snippets_are_python_and_import_what_there_is(self, document: Path) -> None:
        for snippet in blocks(document, "python"):
            for node in ast.walk(ast.parse(snippet)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "async_signals":
                    module = importlib.import_module(str(node.module))
                    for alias in node.names:
                        assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"

    def test_links_lead_somewhere(self, document: Path) -> None:
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", document.read_text()):
            if target and "://" not in target:
                assert (document.parent / target).exists(), f"{name_of(document)} points to {target}"

    def test_anchors_are_headings(self, document: Path) -> None:
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", document.read_text()):
            pointed = document.parent / target if target else document
            headings = re.findall(r"^#+ (.+)$", pointed.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{name_of(document)} points to {target}#{anchor}"


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs" / "settings.md"], ids=name_of)
def test_the_tables_of_settings_agree_with_the_code(document: Path) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    text = document.read_text().partition("ASYNC_SIGNALS")[2]
    rows = dict(re.findall(r'^\| `"(\w+)"` \| ([^|]+) \|', text, re.MULTILINE))
    assert set(rows) <= set(defaults)
    if document.name == "settings.md":
        assert set(rows) == set(defaults)
    for key, told in rows.items():
        literal = re.match(r"`([^`]+)`", told)
        if literal:  # in words where the default is looked for
            assert ast.literal_eval(literal[1]) == defaults[key], key


class TestTheFirstScreenOfTheReadme:
    """From nothing to a running receiver, with the README's own files and commands."""

    @pytest.fixture
    def project(self, tmp_path: Path, redis_server: RedisServer) -> Path:
        self.run(tmp_path, "-m", "django", "startproject", "proj", ".")
        self.run(tmp_path, "-m", "django", "startapp", "shop")
        written = set()
        for snippet in blocks(ROOT / "README.md", "python"):
            first, _, rest = snippet.partition("\n")
            if path := re.fullmatch(r"# ((?:proj|shop)/\w+\.py)", first):
                rest = rest.replace("redis://localhost:6379/0", redis_server.fresh_url())
                with (tmp_path / path[1]).open("a" if path[1] == "proj/settings.py" else "w") as file:
                    file.write(rest)
                written.add(path[1])
        assert written >= {"proj/celery.py", "proj/settings.py", "shop/signals.py", "shop/receivers.py"}
        return tmp_path

    @pytest.fixture
    def commands(self) -> dict[str, list[str]]:
        """The shell commands of step 4, by their program, for this Python."""
        [shell] = [text for text in blocks(ROOT / "README.md", "sh") if "worker -Q" in text]
        worker, manage = shell.strip().splitlines()
        program, *flags = worker.split()
        quoted = re.fullmatch(r'python (manage\.py shell -c) "(.+)"', manage)
        assert quoted is not None
        return {
            "worker": [sys.executable, "-m", program.replace("-", "_"), *flags],
            "send": [sys.executable, *quoted[1].split(), quoted[2]],
        }

    @pytest.fixture
    def worker(self, project: Path, commands: dict[str, list[str]]) -> Iterator[Process]:
        process = Process(commands["worker"], env={**os.environ, "PYTHONUNBUFFERED": "1"}, cwd=project)
        yield process
        process.stop()

    def test_the_worker_prints_what_the_readme_says(
        self, project: Path, commands: dict[str, list[str]], worker: Process
    ) -> None:
        self.run(project, *commands["send"][1:])
        worker.wait_for("order 5 was placed")

    @staticmethod
    def run(folder: Path, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
