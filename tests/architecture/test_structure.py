"""The structure of the source: no circles, small rooms, few hidden imports, modules named by registries only."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrows import PLACE, ROOT, Arrow, arrows, circles, modules, string_places

MOST_FILES = 15
"""Source files of one folder: more than a reader takes in at a look."""

MOST_LAZY_IMPORTS = 15
"""Imports inside functions. Each keeps `pile --help`, `pile plan` or a worker from loading what is not used."""

REASON = re.compile(r"# noqa: PLC0415 - \S")

NAMING_FILES = ("registry.py", "stage.py")
"""Files that may name modules in strings: registries, and a stage's own line about where its work is done."""

NAMING_MODULES = frozenset({"flows.stages", "flows.plugins", "flows.command.verbs"})
"""Registries that are called otherwise."""


def test_no_siblings_of_any_folder_form_a_circle() -> None:
    assert circles(arrows()) == []


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    sizes = Counter(path.parent for path in modules().values())
    assert {str(folder.relative_to(ROOT)): n for folder, n in sizes.items() if n > MOST_FILES} == {}


def test_imports_inside_functions_are_few_and_each_gives_its_reason() -> None:
    found = list(lazy_imports())
    listing = "\n".join(f"{path}:{line}: {text}" for path, line, text in found)
    assert [text for _, _, text in found if not REASON.search(text)] == [], listing
    assert len(found) <= MOST_LAZY_IMPORTS, listing


def test_modules_are_named_in_strings_only_by_registries() -> None:
    strangers = [
        f"{path.relative_to(ROOT)}:{line}: {place}"
        for name, path in modules().items()
        for line, place in string_places(path)
        if path.name not in NAMING_FILES and name not in NAMING_MODULES
    ]
    assert strangers == []


def lazy_imports() -> Iterator[tuple[str, int, str]]:
    """Yield file, line and text of every import statement inside a function."""
    for path in modules().values():
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for function in ast.walk(ast.parse(source)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        yield str(path.relative_to(ROOT)), node.lineno, lines[node.lineno - 1].strip()


# ---- the checks themselves --------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project without circles."""
    for name, text in {
        "storage/base.py": "",
        "storage/one/member.py": "from storage.base import x\n",
        "storage/one/registry.py": 'MEMBERS = {"member": "storage.one.member:MEMBER"}\n',
        "model/user.py": "from storage.one.registry import MEMBERS\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_tree_without_circles_has_none(tree: Path) -> None:
    assert circles(arrows(tree)) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("import storage.one.registry\n", "top"),
        ("def f():\n    from storage.one import registry\n", "lazy"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from storage.one.registry import MEMBERS\n",
            "typing",
        ),
        ('PLACE = "storage.one.registry:MEMBERS"\n', "string"),
    ],
)
def test_a_circle_is_found_whatever_kind_of_import_closes_it(tree: Path, text: str, kind: str) -> None:
    (tree / "storage/one/member.py").write_text(text)
    found = arrows(tree)
    assert Arrow("storage.one.member", "storage.one.registry", len(text.splitlines()), kind) in found
    assert circles(found) == [["storage.one.member", "storage.one.registry"]]


def test_a_circle_of_folders_is_found_where_no_file_is_in_one(tree: Path) -> None:
    (tree / "storage/two").mkdir()
    (tree / "storage/two/a.py").write_text("from storage.one.member import x\n")
    (tree / "storage/one/b.py").write_text("from storage.two.c import x\n")
    (tree / "storage/two/c.py").write_text("")
    assert circles(arrows(tree)) == [["storage.one", "storage.two"]]


def test_places_are_told_from_other_text() -> None:
    assert PLACE.fullmatch("tasks.filter.build:filter_corpus")
    assert PLACE.fullmatch("model.training.worker")
    assert not PLACE.fullmatch("the model.training.worker runs")
    assert not PLACE.fullmatch("modelling.training")
