"""A registry hands out what can be used, names what cannot, and never gives up a name of ours."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import InputError
from storage.registry import Registry

GROUP = "pile_pipeline.test_things"
MODULE = "pieces_of_a_test_package"

Install = Callable[..., None]


def check_text(name: str, member: Any) -> None:
    if not isinstance(member, str):
        raise InputError(f"must be text, found {member!r}")
    if not member.startswith(name):
        raise InputError(f"must begin with {name}, found {member!r}")


def things(**own: str) -> Registry[str]:
    """A seam of texts that begin with their name; no two may have one last letter."""
    return Registry("thing", GROUP, own, check_text, lambda member: [f"the letter {member[-1]}"])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of a name with entry points, all of whose attributes stand in one module."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(package: str, code: str = "", **points: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {MODULE}_{package}:{attribute}\n" for name, attribute in points.items())
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        (tmp_path / f"{MODULE}_{package}.py").write_text(code)

    yield write
    for name in [name for name in sys.modules if name.startswith(MODULE)]:
        del sys.modules[name]


def refused(registry: Registry[str]) -> dict[tuple[str, str], str]:
    """Return the problems by package and name."""
    return {(line.package, line.name): str(p) for line in registry.lines if (p := registry.problem(line))}


def test_members_are_ours_and_those_of_packages(install: Install) -> None:
    install("ours", "A = 'aa'")
    install("good", "B = 'bb'", b="B")
    registry = things(a=f"{MODULE}_ours:A")
    assert list(registry.members()) == [("a", "aa"), ("b", "bb")]
    assert registry.get("b") == "bb"
    assert refused(registry) == {}
    with pytest.raises(InputError, match="a thing must be one of a, b, found 'c'"):
        registry.get("c")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "must be importable, but SystemExit: 3"),
        ("import not_there_at_all", "must be importable, but ModuleNotFoundError: No module"),
        ("raise ValueError('two\\nlines')", "must be importable, but ValueError: two lines"),
        ("Y = 1", "must be importable, but AttributeError"),
        ("X = 5", "must be text, found 5"),
        ("X = 'other'", "must begin with bad, found 'other'"),
        (
            "class Odd(str):\n    def startswith(self, _): return 1 / 0\nX = Odd()",
            "must be what the seam asks for, but ZeroDivisionError",
        ),
    ],
)
def test_piece_that_cannot_be_used_is_named_and_left_out(install: Install, code: str, problem: str) -> None:
    install("broken", code, bad="X")
    install("good", "B = 'bb'", b="B")
    registry = things()
    assert dict(registry.members()) == {"b": "bb"}
    assert list(refused(registry)) == [("broken", "bad")]
    with pytest.raises(InputError, match=r"^the thing 'bad' of broken 1\.0") as raised:
        registry.get("bad")
    assert f"({MODULE}_broken:X) {problem}" in str(raised.value)
    assert str(raised.value).endswith("; mend or uninstall broken")


def test_interrupt_while_a_package_is_imported_is_no_problem_of_the_package(install: Install) -> None:
    install("slow", "raise KeyboardInterrupt", bad="X")
    with pytest.raises(KeyboardInterrupt):
        list(things().members())


def test_name_of_ours_is_not_taken_over(install: Install) -> None:
    install("ours", "A = 'aa'")
    install("taker", "A = 'ab'", a="A")
    registry = things(a=f"{MODULE}_ours:A")
    assert dict(registry.members()) == {"a": "aa"}
    assert registry.get("a") == "aa"
    [(line, problem)] = refused(registry).items()
    assert line == ("taker", "a")
    assert problem.endswith("which stays; rename it or uninstall taker")


def test_of_two_packages_with_one_name_neither_has_it(install: Install) -> None:
    install("one", "X = 'xx'\nY = 'yy'", x="X", y="Y")
    install("two", "X = 'xz'", x="X")
    registry = things()
    assert dict(registry.members()) == {"y": "yy"}
    assert set(refused(registry)) == {("one", "x"), ("two", "x")}
    with pytest.raises(InputError, match="the thing 'x' must come from one package") as raised:
        registry.get("x")
    assert f"one 1.0 ({MODULE}_one:X)" in str(raised.value)
    assert f"two 1.0 ({MODULE}_two:X)" in str(raised.value)


def test_what_only_one_can_have_stays_ours(install: Install) -> None:
    install("ours", "A = 'a!'")
    install("bad", "B = 'b!'\nC = 'cc'", b="B", c="C")
    registry = things(a=f"{MODULE}_ours:A")
    assert dict(registry.members()) == {"a": "a!", "c": "cc"}
    [(line, problem)] = refused(registry).items()
    assert line == ("bad", "b")
    assert f"must be the only one for the letter !, found 'a' of pile-pipeline ({MODULE}_ours:A) too" in problem


def test_of_two_packages_neither_has_what_only_one_can_have(install: Install) -> None:
    install("one", "B = 'b!'", b="B")
    install("two", "C = 'c!'\nD = 'dd'", c="C", d="D")
    registry = things()
    assert dict(registry.members()) == {"d": "dd"}
    assert set(refused(registry)) == {("one", "b"), ("two", "c")}


def test_piece_of_ours_that_cannot_be_used_is_an_error(install: Install) -> None:
    install("ours", "A = 5")
    registry = things(a=f"{MODULE}_ours:A")
    with pytest.raises(InputError, match="must be text, found 5; mend it"):
        list(registry.members())


def test_problem_is_logged_once(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("one", "X = 'xx'", x="X", broken="Y")
    install("two", "X = 'xz'", x="X")
    registry = things()
    with caplog.at_level(logging.WARNING, "storage.registry"):
        for _ in range(3):
            assert list(registry.members()) == []
    assert len(caplog.records) == len({record.getMessage() for record in caplog.records}) == 2
