"""Members of seams are anonymous: who calls one asks through the protocol, never for its class or its name."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from arrows import ROOT
from members import CONFIGS, Member, Stranger, lone_flags, strangers
from pydantic import BaseModel

from flows.plugins import registries
from flows.recipes.registry import RECIPES
from flows.stages import STAGES
from storage.config import Config
from storage.registry import Registry
from tasks.core.stage import Stage

REGISTRIES = registries()
REGISTRY_MODULES = frozenset({"flows.plugins", *REGISTRIES})

CHOOSING_MODULES = frozenset({"tasks.filter.policies", *(recipe.__module__ for recipe in RECIPES.values())})
"""Recipes and filter policies are lists of members and their settings, and so name them."""

STAGE_MODULES = frozenset(entry.reference.partition(":")[0] for entry in STAGES.entries.values())
"""A stage says by name which others it reads."""

ALLOWED: dict[str, list[tuple[str, str, str]]] = {
    "finds the section that says how long sequences are, and the one that says how large the vocabulary is": [
        ("flows.command.models.estimate", "import", "tasks.pack.config"),
        ("flows.command.models.estimate", "import", "tasks.train_tokenizer.config"),
    ],
    "the stage whose artifact is a model is what `pile generate` takes when nothing is said": [
        ("flows.command.models.choosing", "name", "train"),
    ],
    "the section that a union of members stands in": [
        ("flows.command.running.asked", "name", "download"),
        ("flows.recipes.merging", "name", "download"),
    ],
    "the word is that of FastAPI's routers": [
        ("flows.service.server_process", "field", "prefix"),
    ],
    "the labels stand in the manifest of what the model was trained on": [
        ("tasks.evaluate.labelled_documents", "field", "field_map"),
    ],
    "evaluate's own metrics.json, whose config says what was measured": [
        ("tasks.reports.evaluation", "field", "max_bytes_per_subset"),
    ],
    "the stage whose finished artifacts say how long a training took": [
        ("flows.command.models.this_machine", "name", "train"),
    ],
    "the default of a union may be another member, whose fields cannot be compared": [
        ("flows.command.fields", "class", "type(default) is type(config)"),
    ],
    "what makes a recipe smaller knows the sections of ours that say how large it is": [
        ("flows.recipes.smoke", "import", "storage.sources.files"),
        ("flows.recipes.smoke", "field", "patterns"),
        ("flows.recipes.smoke", "import", "tasks.download.config"),
        ("flows.recipes.smoke", "import", "tasks.pack.config"),
        ("flows.recipes.smoke", "import", "tasks.train_tokenizer.config"),
    ],
    "a trial is a run of two stages on a sample that is read as a third one would: it shows what they saw": [
        ("flows.command.verbs", "name", "filter"),
        ("flows.trial.page", "import", "tasks.filter.explaining"),
        ("flows.trial.sample", "import", "tasks.download.config"),
        ("flows.trial.sample", "import", "tasks.download.reshard"),
        ("flows.trial.verdicts", "import", "tasks.dedup.config"),
        ("flows.trial.verdicts", "import", "tasks.dedup.stage"),
        ("flows.trial.verdicts", "import", "tasks.filter.config"),
        ("flows.trial.verdicts", "import", "tasks.filter.stage"),
        ("flows.trial.verdicts", "field", "policy_name"),
    ],
    "sizes for text of one's own are those of one family": [
        ("flows.recipes.sizing", "field", "d_ff"),
        ("flows.recipes.sizing", "name", "rope"),
    ],
    "a word of its own that a member happens to be called by": [
        ("flows.command.fields", "name", "json"),
        ("flows.recipes.wording", "field", "pattern"),
        ("flows.command.store.show", "name", "file"),
        ("flows.command.store.upkeep", "name", "files"),
        ("flows.pipeline", "name", "json"),
        ("flows.runs.record", "name", "json"),
        ("flows.command.running.asked", "field", "patterns"),
        ("flows.command.completion_script", "name", "files"),
        ("flows.command.verbs", "name", "files"),
        ("flows.command.filtering", "name", "file"),
        ("flows.command.filtering", "name", "files"),
        ("flows.trial.page", "name", "files"),
        ("tasks.filter.explaining", "field", "pattern"),
        ("model.families.gpt2.formulas", "field", "feed_forward"),
        ("model.pretrained.check", "field", "eos_token_id"),
        ("model.pretrained.check", "name", "code"),
        ("model.pretrained.check", "name", "files"),
        ("storage.artifacts.upkeep.gc", "name", "file"),
        ("storage.artifacts.upkeep.gc", "name", "local"),
        ("storage.backends.s3_errors", "class", "Code"),
        ("storage.backends.s3_errors", "name", "Code"),
        ("storage.backends.s3", "name", "file"),
        ("storage.formats.documents", "name", "train"),
        ("storage.sources.local_mistakes", "name", "file"),
        ("storage.sources.local_mistakes", "name", "s3"),
        ("storage.sources.python_environment.mirror", "name", "file"),
        ("storage.sources.python_environment.source", "name", "files"),
        ("storage.sources.python_environment.source", "name", "mirror"),
        ("tasks.core.runner", "name", "deepspeed"),
        ("tasks.download.quarantine", "name", "file"),
        ("tasks.download.quarantine", "name", "files"),
        ("tasks.publish.build", "name", "file"),
        ("tasks.train_tokenizer.build", "name", "gpt2"),
        ("tasks.train_tokenizer.config", "name", "gpt2"),
    ],
    "asks something of another library, whose versions differ": [
        ("model.families.world.experts", "attribute", "hasattr"),
        ("model.pretrained.check", "class", "type(model).__name__ != architecture.name"),
        ("storage.backends.s3_errors", "attribute", "getattr"),
        ("storage.sources.http.transport", "attribute", "getattr"),
        ("tasks.core.cores", "attribute", "hasattr"),
    ],
    "damaged files raise it": [
        ("model.export.tensors", "attribute", "AttributeError"),
        ("model.notebook.files", "attribute", "AttributeError"),
    ],
    "goes over the fields of a class of this very module, or over those that a table names": [
        ("model.families.world.export.code.modeling_world", "attribute", "getattr"),
        ("model.generation.sampling", "attribute", "getattr"),
        ("model.notebook.fit", "attribute", "vars"),
        ("model.training.checkpoint", "attribute", "vars"),
        ("storage.config", "attribute", "getattr"),
        ("storage.registry", "attribute", "getattr"),
        ("storage.formats.drops", "attribute", "attrgetter"),
        ("tasks.dedup.build", "attribute", "attrgetter"),
        ("tasks.dedup.plan", "attribute", "attrgetter"),
        ("tasks.filter.build", "attribute", "attrgetter"),
        ("tasks.download.build", "attribute", "attrgetter"),
        ("tasks.pack.build", "attribute", "attrgetter"),
        ("tasks.tokenize.build", "attribute", "attrgetter"),
    ],
    "only modules with weights of their own have `reset_parameters`": [
        ("model.layers.basic", "attribute", "getattr")
    ],
    "what is computed once is kept under the name that it was asked by": [
        ("tasks.filter.lazy", "attribute", "__dict__")
    ],
    "only records of progress have `progress`": [("model.training.worker", "attribute", "getattr")],
}
"""Reason why it is no knowledge of a member, or why it must be -> (module, kind, what)."""

ALLOWED_FLAGS: dict[tuple[str, str], str] = {
    (
        "stage",
        "needs_all",
    ): "a stage that is off is passed by: what reads a file that it alone writes must say so",
    (
        "stage",
        "check",
    ): "what a section must fulfil that only the registries behind it know",
    ("stage", "quotes_inputs"): "any stage that writes about its inputs must be built again when they are others",
    ("stage", "describe_attempt"): "any stage may say in its own words how far an unfinished attempt came",
    ("stage", "result"): "any part may be what people take away as a folder",
    ("stage", "sources"): "what comes from outside the store, wherever it enters the chain",
    ("model family", "learned_positions"): "a table of positions ends; every family says whether it has one",
    ("backend", "exact_create"): "what a disk can promise and an object store cannot",
}
"""(seam, attribute that one member alone sets) -> why any other may."""


def test_nobody_outside_a_members_home_knows_it() -> None:
    allowed = {each for places in ALLOWED.values() for each in places}
    left = [each for each in own_strangers() if (each.module, each.kind, each.what) not in allowed]
    assert left == [], "\n".join(f"{each.module}:{each.line}: {each.kind} {each.what}" for each in left)


def test_every_exception_is_needed() -> None:
    found = {(each.module, each.kind, each.what) for each in own_strangers()}
    assert {each for places in ALLOWED.values() for each in places} <= found


def test_no_attribute_of_a_seam_is_for_one_member_alone() -> None:
    assert lone_flags({registry.kind: own(registry) for registry in REGISTRIES.values()}) == set(ALLOWED_FLAGS)


@pytest.mark.parametrize("kind", [registry.kind for registry in REGISTRIES.values()])
def test_one_contract_of_independence_lists_every_member_of_a_seam(kind: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    independent = [set(each["modules"]) for each in contracts if each["type"] == "independence"]
    assert {member.home for member in own_members() if member.seam == kind} in independent


def own_strangers() -> list[Stranger]:
    """Return the places of this project that know a member, but for those whose business that is."""
    return [
        each
        for each in strangers(own_members(), REGISTRY_MODULES, ROOT)
        if each.module not in CHOOSING_MODULES
        and not (each.module in STAGE_MODULES and each.kind == "name" and each.what in STAGES.names())
    ]


def own(registry: Registry[Any]) -> list[Any]:
    """Return the members of a seam that this project brings."""
    return [registry.get(entry.name) for entry in registry.lines if entry.is_own]


def own_members() -> list[Member]:
    """Return the members that this project brings."""
    return [
        Member(registry.kind, name, entry.reference.partition(":")[0], config_fields(registry.get(name)))
        for registry in REGISTRIES.values()
        for name, entry in registry.entries.items()
        if entry.is_own
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
MIRROR = """\
class Mirror:
    url = ''
    is_mirror = True
    def only_here(self): ...
"""
REGISTRIES_OF_TREE = {"storage.sources.registry"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two sources, one of them a folder, their registry and a user of both."""
    for name, text in {
        "storage/sources/mirror/source.py": MIRROR,
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
        ("type(x) is a.Mirror", "class", "Mirror"),
        ("type(x) == SOURCES.get(name)", "class", "type(x) == SOURCES.get(name)"),
        ("type(x).__name__ == name", "class", "type(x).__name__ == name"),
        ("x.__class__ is y", "class", "__class__"),
        ("type(x) in (a.Mirror,)", "class", "Mirror"),
        ("builtins.isinstance(x, a.Mirror)", "class", "Mirror"),
        ("try: pass\nexcept a.Mirror: pass", "class", "Mirror"),
        ("@functools.singledispatch\ndef f(x): ...", "class", "singledispatch"),
        ("type(x).__name__ == 'Mirror'", "class", "Mirror"),
        ("isinstance(x, SOURCES.get('mirror'))", "name", "mirror"),
        ("MIRROR = 'mirror'\nx.kind == MIRROR", "name", "mirror"),
        ("NAMES = frozenset({'mirror'})\nx.kind in NAMES", "name", "mirror"),
        ("{'mirror': 1}[x.kind]", "name", "mirror"),
        ("{'mirror': 1}.get(x.kind)", "name", "mirror"),
        ("x.kind.startswith('mirror')", "name", "mirror"),
        ("operator.eq(x.kind, 'mirror')", "name", "mirror"),
        ("re.match('mirror', x.kind)", "name", "mirror"),
        ("x.kind.upper() == 'MIRROR'", "name", "MIRROR"),
        ("match x:\n    case C(kind='mirror'): pass", "name", "mirror"),
        ("x.model_dump()['include']", "field", "include"),
        ("'include' in type(x).model_fields", "field", "include"),
        ("x.is_mirror", "field", "is_mirror"),
        ("x.only_here()", "field", "only_here"),
        ("hasattr(x, 'y')", "attribute", "hasattr"),
        ("getattr(x, 'y', None)", "attribute", "getattr"),
        ("getattr(x, name)", "attribute", "getattr"),
        ("operator.attrgetter(name)(x)", "attribute", "attrgetter"),
        ("'y' in dir(x)", "attribute", "dir"),
        ("'y' in x.__dict__", "attribute", "__dict__"),
        ("try:\n    x.y\nexcept AttributeError: pass", "attribute", "AttributeError"),
    ],
)
def test_each_kind_of_knowledge_is_found(tree: Path, text: str, kind: str, what: str) -> None:
    (tree / "tasks/user.py").write_text(text + "\n")
    assert (kind, what) in [(each.kind, each.what) for each in strangers(MEMBERS, REGISTRIES_OF_TREE, tree)]


def test_a_member_that_knows_its_sibling_is_found(tree: Path) -> None:
    (tree / "storage/sources/files.py").write_text("x = 'mirror' == y\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == [Stranger("storage.sources.files", 1, "name", "mirror")]


@pytest.mark.parametrize(
    "text",
    ["'mirror'", "x.patterns_of", "'a mirror' == x", "type(x) is int", "class Mirror: ...\nMirror()"],
)
def test_what_is_no_knowledge_of_a_member_is_left_alone(tree: Path, text: str) -> None:
    (tree / "tasks/user.py").write_text(text + "\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == []


def test_an_import_of_a_sibling_is_found(tree: Path) -> None:
    (tree / "storage/sources/files.py").write_text("from storage.sources.mirror.source import x\n")
    found = strangers(MEMBERS, REGISTRIES_OF_TREE, tree)
    assert found == [Stranger("storage.sources.files", 1, "import", "storage.sources.mirror.source")]


def test_a_flag_that_one_member_alone_sets_is_found() -> None:
    class Base:
        is_fast = False
        is_old = False
        limit = 3
        version = 1

    class One(Base):
        is_fast = True
        is_old = True
        version = 2

    class Other(Base):
        is_old = True

    assert lone_flags({"source": [One, Other]}) == {("source", "is_fast")}
    stages = [Stage("a", 1, Config, print, highlight=True), Stage("b", 1, Config, print)]
    assert lone_flags({"stage": stages}) == {("stage", "highlight")}


def test_a_field_that_others_have_too_does_not_tell_whose_it_is(tree: Path) -> None:
    (tree / "tasks/user.py").write_text("class Request:\n    url: str\n\ny = x.url, x.include\n")
    assert strangers(MEMBERS, REGISTRIES_OF_TREE, tree) == [Stranger("tasks.user", 4, "field", "include")]
