"""The structure of the source: no circles, small rooms, few hidden imports, modules named by registries only."""

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from arrows import PLACE, ROOT, Arrow, arrows, circles, modules, string_places

from flows.plugins import registries

WORLD = "model.families.world"
BUNDLER = f"{WORLD}.export.folder_code"

MOST_FILES = 15
"""Source files of one folder: more than a reader takes in at a look."""

MOST_LAZY_IMPORTS = 19
"""Imports inside functions. Each keeps `pile --help`, `pile plan` or a worker from loading what is not used."""

DATA_STAGES = ("download", "filter", "dedup", "train_tokenizer", "tokenize", "pack")
HEAVY = {"torch", "deepspeed", "transformers"}

REASON = re.compile(r"# noqa: PLC0415 - \S")

REGISTRIES = frozenset({*registries(), "flows.plugins", "flows.command.verbs"})
"""Modules that name others in strings, so that they are loaded when they are first asked for."""

NAMED_STRANGERS = {
    ("tasks.train.process", "model.training.worker"): "`python -m` of another process: nothing is loaded here",
    ("flows.command.running.detach", "flows.command"): "likewise",
    (BUNDLER, f"{WORLD}.export.code.modeling_world"): "reads the source text of a module, to publish it",
    (BUNDLER, f"{WORLD}.export.code.configuration_world"): "likewise",
    (BUNDLER, f"{WORLD}.config"): "likewise",
}
"""(module, module that it names in a string) -> why it is neither a registry nor a member's entry there."""


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
    entries = members_entries()
    found = {
        (name, place.partition(":")[0]): f"{name}:{line}: {place}"
        for name, line, place in string_places()
        if name not in REGISTRIES and not (name in entries and place.startswith(f"{name.rpartition('.')[0]}."))
    }
    assert [text for pair, text in found.items() if pair not in NAMED_STRANGERS] == []
    assert set(NAMED_STRANGERS) <= set(found)


def test_data_stages_load_nothing_heavy() -> None:
    names = [name for name in modules() if name.split(".")[:2] in [["tasks", stage] for stage in DATA_STAGES]]
    code = f"import sys, {', '.join(names)}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def members_entries() -> set[str]:
    """Return the modules that registries name: each may name the modules of its own folder in strings."""
    return {
        entry.reference.partition(":")[0]
        for registry in registries().values()
        for entry in registry.entries.values()
    }


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


def test_names_of_other_modules_in_strings_are_found(tree: Path) -> None:
    (tree / "model/user.py").write_text(
        'a = "storage.one.member:MEMBER"\nb = "model.user"\nc = "model.safetensors"\n'
    )
    assert string_places(tree) == [
        ("model.user", 1, "storage.one.member:MEMBER"),
        ("storage.one.registry", 1, "storage.one.member:MEMBER"),
    ]


def test_places_are_told_from_other_text() -> None:
    assert PLACE.fullmatch("tasks.filter.build:filter_corpus")
    assert PLACE.fullmatch("model.training.worker")
    assert not PLACE.fullmatch("the model.training.worker runs")
    assert not PLACE.fullmatch("modelling.training")
