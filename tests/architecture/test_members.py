"""Members of seams are anonymous: who calls one asks through the protocol, never for its class or its name."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from arrows import ROOT
from members import Member, Stranger, strangers
from pydantic import BaseModel

from flows.plugins import registries
from flows.recipes.registry import RECIPES
from storage.registry import OWN_PACKAGE

REGISTRIES = registries()
REGISTRY_MODULES = frozenset({"flows.plugins", *REGISTRIES})

RECIPE_MODULES = frozenset({recipe.__module__ for recipe in RECIPES.values()})
"""A recipe is a list of configs of members, and so imports them."""
RESET = "getattr(module, 'reset_parameters', None)"

CONFIGS = ("config", "shape", "config_type")
"""Where a member that is no config itself names its own."""

ALLOWED: dict[tuple[str, str, str], str] = {
    (
        "flows.command.estimate",
        "import",
        "tasks.pack.config",
    ): "finds the section that says how long sequences are",
    ("flows.command.estimate", "import", "tasks.train_tokenizer.config"): "likewise, the size of the vocabulary",
    ("storage.artifacts.gc", "name", "file"): "a kind of garbage, not the backend of `file://`",
    ("storage.backends.s3", "name", "file"): "what s3fs calls an object, not the backend of `file://`",
    ("storage.backends.s3", "attribute", "getattr(error.__cause__ or error, 'response', None)"): (
        "only some errors of botocore have the server's answer"
    ),
    ("tasks.dedup.drops", "name", "train"): "the split, not the stage",
    ("tasks.pack.build", "name", "train"): "the split, not the stage",
    ("tasks.train_tokenizer.build", "name", "gpt2"): "the pattern that splits text, not the family",
    ("tasks.train.build", "attribute", "hasattr(os, 'sched_getaffinity')"): "not every system has it",
    (
        "model.families.world.experts",
        "attribute",
        "hasattr(F, 'grouped_mm')",
    ): "a published folder meets older torch",
    ("model.families.world.export.code.modeling_world", "attribute", RESET): "only modules of ours have it",
    ("model.layers.basic", "attribute", RESET): "only modules with weights of their own have it",
    (
        "model.training.worker",
        "attribute",
        "getattr(record, 'progress', None)",
    ): "only records of progress have it",
}
"""(module, kind, what) -> why that is no knowledge of a member, or why it must be."""


def test_nobody_outside_a_members_home_knows_it() -> None:
    left = [each for each in own_strangers() if (each.module, each.kind, each.what) not in ALLOWED]
    assert left == [], "\n".join(f"{each.module}:{each.line}: {each.kind} {each.what}" for each in left)


def test_every_exception_is_needed() -> None:
    found = {(each.module, each.kind, each.what) for each in own_strangers()}
    assert set(ALLOWED) <= found


@pytest.mark.parametrize("kind", [registry.kind for registry in REGISTRIES.values()])
def test_one_contract_of_independence_lists_every_member_of_a_seam(kind: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    independent = [set(each["modules"]) for each in contracts if each["type"] == "independence"]
    assert {member.home for member in own_members() if member.seam == kind} in independent


def own_strangers() -> list[Stranger]:
    """Return the places of this project that know a member, without the imports of recipes."""
    found = strangers(own_members(), REGISTRY_MODULES, ROOT)
    return [each for each in found if each.kind != "import" or each.module not in RECIPE_MODULES]


def own_members() -> list[Member]:
    """Return the members that this project brings."""
    return [
        Member(registry.kind, name, entry.place.partition(":")[0], config_fields(registry.get(name)))
        for registry in REGISTRIES.values()
        for name, entry in registry.entries.items()
        if entry.package == OWN_PACKAGE
    ]


def config_fields(member: Any) -> frozenset[str]:
    """Return the fields of a member's config, if it has one."""
    found = [member, *(getattr(member, name, None) for name in CONFIGS)]
    return frozenset(
        name
        for config in found
        if isinstance(config, type) and issubclass(config, BaseModel)
        for name in config.model_fields
    )


# ---- the check itself -------------------------------------------------------------------------------------------

MEMBERS = [
    Member("source", "mirror", "storage.sources.mirror.source", frozenset({"url", "include"})),
    Member("source", "files", "storage.sources.files", frozenset({"patterns"})),
]
REGISTRIES_OF_TREE = {"storage.sources.registry"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two sources, one of them a folder, their registry and a user of both."""
    for name, text in {
        "storage/sources/mirror/source.py": "class Mirror:\n    url = ''\n",
        "storage/sources/mirror/http.py": "from storage.sources.mirror.source import Mirror\nx = Mirror().url\n",
        "storage/sources/files.py": "class Files:\n    patterns = ()\n",
        "storage/sources/registry.py": "from storage.sources.files import Files\nx = 'mirror' == 'files'\n",
        "tasks/user.py": "from storage.sources.registry import x\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_homes_and_registries_may_know_their_members(tree: Path) -> None:
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == []


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("from storage.sources.mirror.http import x", "import", "storage.sources.mirror.http"),
        ("def f():\n    import storage.sources.files", "import", "storage.sources.files"),
        ("isinstance(x, Mirror)", "class", "Mirror"),
        ("issubclass(x, (int, a.Files))", "class", "Files"),
        ("match x:\n    case Mirror(): pass", "class", "Mirror"),
        ("x.kind == 'mirror'", "name", "mirror"),
        ("x.kind in ('other', 'files')", "name", "files"),
        ("'files' in x", "name", "files"),
        ("match x:\n    case 'mirror' | 'files': pass", "name", "files"),
        ("x.include", "field", "include"),
        ("hasattr(x, 'y')", "attribute", "hasattr(x, 'y')"),
        ("getattr(x, 'y', None)", "attribute", "getattr(x, 'y', None)"),
    ],
)
def test_each_kind_of_knowledge_is_found(tree: Path, text: str, kind: str, what: str) -> None:
    (tree / "tasks/user.py").write_text(text + "\n")
    assert (kind, what) in [(each.kind, each.what) for each in strangers(MEMBERS, REGISTRIES_OF_TREE, tree)]


def test_a_member_that_knows_its_sibling_is_found(tree: Path) -> None:
    (tree / "storage/sources/files.py").write_text("x = 'mirror' == y\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == [Stranger("storage.sources.files", 1, "name", "mirror")]


@pytest.mark.parametrize(
    "text", ["x = 'mirror'", "f('files')", "getattr(x, name)", "x.patterns_of", "'a mirror' == x"]
)
def test_what_is_no_knowledge_of_a_member_is_left_alone(tree: Path, text: str) -> None:
    (tree / "tasks/user.py").write_text(text + "\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == []


def test_a_field_that_others_have_too_does_not_tell_whose_it_is(tree: Path) -> None:
    (tree / "tasks/user.py").write_text("class Request:\n    url: str\n\ny = x.url, x.include\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == [Stranger("tasks.user", 4, "field", "include")]
