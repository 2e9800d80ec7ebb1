"""How signals come by their names, and how a worker finds them."""

from __future__ import annotations

from textwrap import dedent
from typing import Protocol

import pytest

from servers.project import Project
from servers.redis import RedisServer

FACTORY = """
    from async_signals import AsyncSignal

    latest = []

    def make(**options):
        return build(**options)

    def build(**options):
        signal = AsyncSignal(**options)
        latest.append(signal)
        return signal
    """


class MakeProject(Protocol):
    def __call__(self, broker: object, **arguments: object) -> Project: ...


@pytest.fixture
def project(make_project: MakeProject, redis_server: RedisServer) -> Project:
    made = make_project(redis_server)
    write(made, "lib_factory", FACTORY)
    return made


def write(project: Project, module: str, source: str) -> None:
    (project.folder / f"{module}.py").write_text(dedent(source))


class TestASignalOfAHelperOfAnotherModule:
    def test_it_has_the_name_of_the_users_variable_and_workers_find_it(self, project: Project) -> None:
        write(project, "made_here", "from lib_factory import make\none = make()\nother = make()\n")
        report = project.run(
            """
            import made_here
            from async_signals import names
            result = [made_here.one.name, names.find("made_here.other") is made_here.other]
            """
        )
        assert report.result == ["made_here.one", True]

    def test_the_users_class(self, project: Project) -> None:
        write(project, "made_here", "from lib_factory import make\nclass Shop:\n    placed = make()\n")
        assert project.run("import made_here; result = made_here.Shop.placed.name").result == "made_here.Shop.placed"

    def test_a_variable_that_is_filled_later(self, project: Project) -> None:
        """Made by nobody's call: it is looked for in every module, by the sender and by the worker alike."""
        write(project, "made_here", "import lib_factory\nlater = lib_factory.latest[0]\n")
        report = project.run(
            """
            import lib_factory
            lib_factory.make()
            import made_here
            from async_signals import names
            result = [names.find("made_here.later") is made_here.later, made_here.later.name]
            """
        )
        assert report.result == [True, "made_here.later"]

    def test_two_variables_are_not_guessed_between(self, project: Project) -> None:
        for module in ("made_here", "made_there"):
            write(project, module, "import lib_factory\nlater = lib_factory.latest[0]\n")
        text = project.attempt(
            """
            import lib_factory
            lib_factory.make()
            import made_here, made_there
            made_here.later.send(None)
            """
        ).failed("NoWireName")
        assert "made_here.later, made_there.later" in text

    def test_the_error_says_where_was_looked(self, project: Project) -> None:
        write(project, "made_here", "from lib_factory import make\nheld = [make()]\n")
        text = project.attempt("import made_here; made_here.held[0].send(None)").failed("NoWireName")
        for word in ("lib_factory.py:", "'lib_factory'", "'made_here'", "any other module", "name="):
            assert word in text

    def test_two_of_one_given_name(self, project: Project) -> None:
        """One place makes both, for two places: no reload of a module."""
        write(project, "made_here", 'from lib_factory import make\none = make(name="x")\nother = make(name="x")\n')
        assert "'x'" in project.attempt("import made_here").failed("DuplicateSignalName")

    def test_a_module_that_is_loaded_again(self, project: Project) -> None:
        write(project, "made_here", "from lib_factory import make\none = make()\n")
        report = project.run(
            """
            import importlib, pathlib, sys
            import made_here
            from async_signals import names
            made_here.one.name
            importlib.reload(made_here)
            again = made_here.one.name == "made_here.one"
            pathlib.Path(made_here.__file__).write_text("from lib_factory import make\\n\\n\\none = make()\\n")
            importlib.reload(made_here)
            result = [again, made_here.one.name, names.find("made_here.one") is made_here.one]
            """
        )
        assert report.result == [True, "made_here.one", True]


class TestWhatModulesHold:
    def test_what_compares_as_it_likes_disturbs_nobody(self, project: Project) -> None:
        write(
            project,
            "made_here",
            """
            import sys
            from async_signals import AsyncSignal

            class Array:
                def __eq__(self, other):
                    raise ValueError("the truth value of an array is ambiguous")
                __hash__ = None

            class Lazy:
                def __getattribute__(self, name):
                    raise RuntimeError("not configured yet")

            array = Array()
            sys.modules["lazy_module"] = Lazy()
            given = AsyncSignal(name="made_here")
            one = AsyncSignal()
            """,
        )
        report = project.run(
            """
            import importlib
            import made_here
            importlib.reload(made_here)
            from async_signals import AsyncSignal, names
            nameless = [AsyncSignal()]
            try:
                nameless[0].name
            except names.NoWireName:
                result = [made_here.one.name, [names.find("nowhere.at.all"), names.find("nothing")]]
            """
        )
        assert report.result == ["made_here.one", [None, None]]

    def test_one_name_that_is_given_twice_harms_no_other(self, project: Project) -> None:
        """The one that has no name then says so as it is sent; a worker finds all others."""
        write(
            project,
            "made_here",
            """
            from async_signals import AsyncSignal
            a = AsyncSignal(name="made_here.b")
            b = AsyncSignal()
            c = AsyncSignal()
            """,
        )
        report = project.run(
            """
            import made_here
            from async_signals import names
            result = [names.find("made_here.c") is made_here.c, "made_here.c" in [s.name for s in names.known()]]
            try:
                made_here.b.name
            except names.DuplicateSignalName:
                result.append("refused")
            """
        )
        assert report.result == [True, True, "refused"]


def test_a_signal_with_aliases_is_listed_once(project: Project) -> None:
    write(
        project,
        "made_here",
        """
        from async_signals import AsyncSignal
        moved = AsyncSignal(aliases=("old.one", "old.other"))
        given = AsyncSignal(name="a.name", aliases=("b.name",))
        """,
    )
    report = project.run(
        """
        import made_here
        from async_signals import names
        result = [signal.name for signal in names.known() if signal in (made_here.moved, made_here.given)]
        assert names.find("old.other") is made_here.moved
        """
    )
    assert report.result == ["a.name", "made_here.moved"]
