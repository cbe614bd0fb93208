"""What the docs name exists: paths, links, modules, commands, entry points; the records they show are whole."""

import ast
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.artifacts.records import (
    Attempt,
    Cancel,
    LeaseRecord,
    Manifest,
    Part,
    Pin,
    Record,
    Run,
    decode_record,
    encode_record,
)
from storage.canonical import artifact_key, canonical_json

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/example_plugin/*.md"))
)
TOP = ("benchmarks", "docs", "flows", "infra", "model", "storage", "tasks", "tests", ".ci")
"""Folders of the repository: what begins with one of them in the docs is a path in it."""

PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, TOP))})/[\w./<>*-]*")
TOP_FILE = re.compile(r"(?<![\w/.-])[A-Z]+\.md\b|\bpyproject\.toml\b|\bconstraints\.txt\b")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE_LINK = re.compile(r"\[([^\]\s]+\.py)\]\(([^)#\s]+)")
MODULE = re.compile(r"(?<![\w/.])(?:flows|model|storage|tasks|benchmarks)(?:\.[A-Za-z_]\w*)++(?![/(])")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
PILE = re.compile(r"(?:^|[`/ ])pile ([a-z][a-z-]*)", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
GROUP = re.compile(r"pile_pipeline\.[a-z]+")

TO_COME = {
    "tasks/train_tokenizer/trainers/",
    "tasks/train/launchers/",
    "model/evaluation/tasks/",
}
"""Rooms that the docs name for what is not there yet, and say so; delete the entry when the room comes."""

FIELDS = {"model.family"}
"""Names in the docs that look like a module and are a field of a record."""

COMMANDS = (
    ("--help",),
    ("recipes",),
    ("recipes", "demo"),
    ("plan", "demo"),
    ("plugins",),
    ("plugins", "source"),
    ("plugins", "source", "mirror"),
)
"""Commands of the docs that are cheap: they are run."""

EXAMPLES: tuple[type[Record], ...] = (Part, Manifest, Run, Cancel, Pin, LeaseRecord, Attempt)


def text(page: Path) -> str:
    return (ROOT / page).read_text()


def code(page: Path) -> str:
    return "\n".join(CODE.findall(text(page)))


def named_paths(page: Path) -> Iterator[str]:
    for found in (*PATH.findall(text(page)), *TOP_FILE.findall(text(page))):
        path = found.rstrip(".")
        if "<" not in path and "*" not in path:
            yield path


def imports(name: str) -> bool:
    """Tell whether a dotted name is a module, or something defined in one."""
    steps = name.split(".")
    for end in range(len(steps), 0, -1):
        base = ROOT.joinpath(*steps[:end])
        path = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if path.is_file():
            if end == len(steps):
                return importlib.util.find_spec(name) is not None
            return steps[end] in defined(path)
    return False


def defined(path: Path) -> set[str]:
    """Return the names that a module defines at its top."""
    tree = ast.parse(path.read_text())
    targets = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    targets += [[node.target] for node in tree.body if isinstance(node, ast.AnnAssign)]
    names = {target.id for found in targets for target in found if isinstance(target, ast.Name)}
    return names | {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_path_and_link_exists(page: Path) -> None:
    folder = (ROOT / page).parent
    missing = {
        path
        for path in named_paths(page)
        if path not in TO_COME and not any((base / path).exists() for base in (ROOT, folder))
    }
    links = {link for link in LINK.findall(text(page)) if "://" not in link and not (folder / link).exists()}
    assert (missing, links) == (set(), set())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_link_that_reads_as_a_file_leads_to_that_file(page: Path) -> None:
    links = FILE_LINK.findall(text(page))
    assert [link for link in links if not f"/{link[1]}".endswith(f"/{link[0]}")] == []


def test_what_is_said_to_come_is_not_there_yet() -> None:
    named = {path for page in PAGES for path in named_paths(page)}
    assert named >= TO_COME
    assert [path for path in TO_COME if (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_module_that_is_named_is_one(page: Path) -> None:
    names = set(MODULE.findall(code(page)))
    assert {name for name in names if not name.endswith((".md", ".py", ".yaml")) and not imports(name)} <= FIELDS


def test_every_make_target_is_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in MAKE.findall(code(page))}
    assert named
    assert named <= targets


def test_every_verb_of_pile_is_one() -> None:
    usage = pile("--help").stdout
    verbs = set(re.findall(r"^ +([a-z][a-z-]*)(?: |$)", usage, re.MULTILINE))
    named = {verb for page in PAGES for verb in PILE.findall(code(page))}
    assert named
    assert named <= verbs


def test_every_entry_point_group_is_one() -> None:
    source = "\n".join(
        path.read_text() for top in ("flows", "tasks", "model", "storage") for path in (ROOT / top).rglob("*.py")
    )
    groups = set(re.findall(r'"(pile_pipeline\.[a-z]+)"', source))
    named = {group for page in PAGES for group in GROUP.findall(text(page))}
    assert named
    assert named <= groups


def test_the_docs_name_nothing_of_a_machine() -> None:
    assert {page for page in PAGES if re.search(r"(?<![\w.])/(?:work|root|home|tmp)/", text(page))} == set()


def pile(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `pile` in the repository."""
    return subprocess.run(
        [sys.executable, "-m", "flows.command", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_cheap_commands_of_the_docs_run(arguments: tuple[str, ...], tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store")) if arguments[0] == "plan" else ()
    done = pile(*arguments, *store)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# ---- docs/format.md ------------------------------------------------------------------------------


def shown_records() -> dict[str, dict[str, object]]:
    blocks = re.findall(r"```json\n(.*?)```", text(Path("docs/format.md")), re.DOTALL)
    records = [json.loads(block) for block in blocks]
    return {record["kind"]: record for record in records if "record_sha256" in record}


@pytest.mark.parametrize("record_type", EXAMPLES, ids=lambda record_type: record_type.kind)
def test_the_records_in_the_page_on_the_format_are_whole(record_type: type[Record]) -> None:
    shown = shown_records()[record_type.kind]
    on_disk = json.dumps(shown, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    assert encode_record(decode_record(record_type, on_disk, "docs/format.md")) == on_disk


def test_the_key_and_the_content_digest_of_the_shown_manifest_can_be_computed_from_it() -> None:
    manifest = shown_records()["manifest"]
    inputs = {f"input:{name}": source["content_digest"] for name, source in manifest["inputs"].items()}  # type: ignore[attr-defined]
    read = {**inputs, **manifest["sources"]}  # type: ignore[dict-item]
    key = artifact_key(str(manifest["stage"]), int(str(manifest["version"])), manifest["config"], read)
    assert key == manifest["key"]
    files = [[file["part"], file["role"], file["sha256"], file["bytes"]] for file in manifest["files"]]  # type: ignore[attr-defined]
    assert hashlib.sha256(canonical_json(sorted(files))).hexdigest() == manifest["content_digest"]


def test_the_shown_records_are_of_one_run() -> None:
    shown = shown_records()
    run, manifest, pin, lease, attempt = (shown[kind] for kind in ("run", "manifest", "pin", "lease", "attempt"))
    keys = {(stage["stage"], stage["key"]) for stage in run["stages"]}  # type: ignore[attr-defined]
    assert (manifest["stage"], manifest["key"]) in keys
    assert (pin["stage"], pin["key"]) in keys
    assert manifest["run_id"] == lease["run_id"] == attempt["run_id"] == run["run_id"]
    same = ("stage", "version", "key", "config", "inputs", "sources")
    assert {name: attempt[name] for name in same} == {name: manifest[name] for name in same}
    assert str(manifest["started"]) < str(attempt["started"]) < str(manifest["finished"])
    assert str(run["started"]) < str(manifest["finished"]) < str(run["finished"]) < str(pin["created"])


def test_the_example_of_canonical_json_is_right() -> None:
    found = re.search(r"^value +(.*)\nencoding +(.*)\nsha256 +(.*)$", text(Path("docs/format.md")), re.MULTILINE)
    assert found is not None
    value, encoding, sha256 = found.groups()
    assert canonical_json(json.loads(value)).decode() == encoding
    assert hashlib.sha256(encoding.encode()).hexdigest() == sha256
