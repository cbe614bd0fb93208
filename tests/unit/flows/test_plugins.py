"""Installed packages: members are listed, a recipe runs their stages, and a broken one harms no other."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.recipes.schema import Recipe
from flows.stages import NOT_SECTIONS, STAGES

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "tests" / "example_plugin"

Pile = Callable[..., "subprocess.CompletedProcess[str]"]


PIECES = {
    "sources": {
        "number": ("number", "must be a class that derives from Source, found 5"),
        "plain-source": ("Plain", "must be a class that derives from Source"),
        "other-kind": ("OtherKind", "found FieldInfo(annotation=Literal['files']"),
        "no-config": ("NoConfig", "must be a class that derives from SourceConfig, found None"),
        "abstract": ("Abstract", "must define all that Source leaves open, found no digests, example, open"),
    },
    "readers": {
        "nothing": ("nothing", "must be a class that derives from Reader, found None"),
        "same-suffix": ("SameSuffix", "must be the only one for files that end in .jsonl"),
        "suffix-text": ("SuffixText", "must have a tuple of ends of file names"),
        "version-text": ("VersionText", "must have a version that is a whole number, found '1'"),
        "other-reader": ("OtherName", "must be registered under the name that it gives itself, found 'jsonl'"),
    },
    "rules": {
        "function": ("function", "must be a class that derives from Rule"),
        "misspelt": ("Misspelt", "found FieldInfo(annotation=Literal['mispelt']"),
        "same-config": ("SameConfig", "found FieldInfo(annotation=Literal['length']"),
    },
    "families": {
        "text": ("text", "must be an object of a class that derives from Family, found 'a'"),
        "class": ("Class", "must be an object of a class that derives from Family"),
        "same-preset": (
            "same_preset",
            "must be the only one for the preset 'gpt2-tiny', found 'gpt2' of pile-pipel",
        ),
        "other-family": ("other_family", "found FieldInfo(annotation=Literal['other']"),
    },
    "engines": {
        "plain-engine": ("Plain", "must be a class that derives from EngineConfig"),
        "other-engine": ("Other", "found FieldInfo(annotation=Literal['other']"),
        "unopened": ("Unopened", "must define how an engine is opened"),
    },
    "backends": {
        "five": ("number", "must be a function from a URL to a backend, or a class, found 5"),
        "GS": ("open_folder", "must be registered under a scheme, in lower case"),
    },
    "stages": {
        "mapping": ("mapping", "must be a Stage, found {}"),
        "own-download": ("download", "must be registered under the name that it gives itself, found 'download'"),
        "name": ("name", "must have a name that means nothing else in a recipe"),
        "all": ("target", "must have a name that means nothing else in a recipe"),
        "steps": ("steps", "must have a name that means nothing else in a recipe"),
        "train_tokenizer": ("section", "must be named with words of a-z and 0-9 with hyphens between them"),
        "section-mapping": ("section_mapping", "must be a class that derives from Config, found <class 'dict'>"),
        "no-build": ("no_build", "must have a function in `build`, found None"),
    },
}
"""Group -> name of an entry point -> attribute in broken_pieces/, and what is said about it."""


def install(site: Path, name: str, entry_points: dict[str, dict[str, str]]) -> None:
    """Write what an installer leaves of a package for those who look for entry points."""
    folder = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = []
    for group, points in entry_points.items():
        lines += [f"[{group}]", *(f"{point} = {place}" for point, place in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages."""
    return tmp_path / "site"


@pytest.fixture
def pile(site: Path, tmp_path: Path) -> Pile:
    """Call `pile` in a process that sees these packages."""

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join(map(str, (REPOSITORY, site, EXAMPLE)))
        environment = {**os.environ, "PYTHONPATH": path, "PILE_STORE": str(tmp_path / "store")}
        command = [sys.executable, "-m", "flows.command", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return call


@pytest.fixture
def example(site: Path) -> None:
    """The example plugin's stage, installed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    groups: dict[str, dict[str, str]] = project["entry-points"]
    install(site, project["name"], {"pile_pipeline.stages": groups["pile_pipeline.stages"]})


def listed(pile: Pile) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(pile("plugins", "--json").stdout)
    return rows


def test_own_members_are_listed_and_can_be_imported(pile: Pile) -> None:
    rows = listed(pile)
    stages = [row["member"] for row in rows if row["seam"] == "stage"]
    assert stages[:3] == ["download", "filter", "dedup"]
    assert [row for row in rows if row["problem"]] == []
    assert pile("plugins").returncode == 0


@pytest.mark.usefixtures("example")
def test_member_of_a_package_is_listed_with_it(pile: Pile) -> None:
    [row] = [row for row in listed(pile) if row["member"] == "statistics"]
    assert row == {
        "seam": "stage",
        "member": "statistics",
        "package": "example-plugin 0.1.0",
        "reference": "example_plugin.stages:STAGE",
        "problem": "",
    }


@pytest.mark.usefixtures("example")
def test_stage_of_a_package_runs_where_a_recipe_has_a_section_of_it(pile: Pile) -> None:
    assert "\nstatistics: " in pile("recipes", "demo").stdout
    without = json.loads(pile("plan", "demo", "--json").stdout)["stages"]
    given = json.loads(pile("plan", "demo", "--json", "--set", "statistics={}").stdout)["stages"]
    assert [stage for stage in given if stage["stage"] != "statistics"] == without
    assert len(given) == len(without) + 1
    alone = pile("plan", "demo", "--json", "--set", "statistics.min_documents=2", "--target", "statistics")
    assert [stage["stage"] for stage in json.loads(alone.stdout)["stages"]] == [
        "download",
        "filter",
        "dedup",
        "statistics",
    ]
    refused = pile("plan", "demo", "--target", "statistics")
    assert refused.returncode == 2
    assert "the target statistics must be on" in refused.stderr


def test_package_that_cannot_be_imported_is_named_and_the_others_work(pile: Pile, site: Path) -> None:
    install(site, "broken-plugin", {"pile_pipeline.stages": {"broken": "broken_plugin.nothing:STAGE"}})
    done = pile("plugins", "--json")
    assert done.returncode == 1
    [row] = [row for row in json.loads(done.stdout) if row["problem"]]
    assert (row["member"], row["package"]) == ("broken", "broken-plugin 0.1.0")
    assert "ModuleNotFoundError" in row["problem"]
    assert pile("plan", "demo").returncode == 0


def test_every_piece_that_is_no_member_of_its_seam_is_named_and_left_out(pile: Pile, site: Path) -> None:
    before = json.loads(pile("plan", "demo", "--json").stdout)
    pieces = {name: problem for group in PIECES.values() for name, (_, problem) in group.items()}
    groups = {
        f"pile_pipeline.{group}": {
            name: f"broken_pieces.{group}:{attribute}" for name, (attribute, _) in found.items()
        }
        for group, found in PIECES.items()
    }
    install(site, "bad", groups)
    shutil.copytree(Path(__file__).with_name("broken_pieces"), site / "broken_pieces")
    listing = pile("plugins", "--json")
    assert listing.returncode == 1
    rows = [row for row in json.loads(listing.stdout) if row["problem"]]
    assert sorted(row["member"] for row in rows) == sorted(pieces)
    for row in rows:
        assert pieces[row["member"]] in row["problem"]
        assert f"{row['member']!r} of bad 0.1.0 ({row['reference']})" in row["problem"]
    assert json.loads(pile("plan", "demo", "--json").stdout) == before


def test_no_name_of_a_section_means_something_else_in_a_recipe() -> None:
    fields = {name for name in dir(Recipe) if not name.startswith("_")} | set(Recipe.model_fields)
    assert fields <= NOT_SECTIONS
    assert not {stage.config_field for _, stage in STAGES.members()} & NOT_SECTIONS


@pytest.mark.parametrize(
    ("group", "asked"),
    [
        ("sources", "download.source={kind: lang}"),
        ("rules", "filter.policies.web.rules=[{rule: lang}]"),
        ("families", "train.model={family: lang}"),
        ("engines", "execution.engine=lang"),
        ("stages", "lang={}"),
    ],
)
def test_recipe_that_asks_for_a_broken_piece_is_told_why(pile: Pile, site: Path, group: str, asked: str) -> None:
    install(site, "broken-plugin", {f"pile_pipeline.{group}": {"lang": "broken_plugin:X"}})
    refused = pile("--quiet", "plan", "demo", "--set", asked)
    assert refused.returncode == 2
    assert "'lang' of broken-plugin 0.1.0 (broken_plugin:X) must be importable" in refused.stderr.splitlines()[-1]


@pytest.mark.usefixtures("example")
def test_of_two_packages_with_one_name_neither_is_used_and_all_else_works(pile: Pile, site: Path) -> None:
    install(site, "other-plugin", {"pile_pipeline.stages": {"statistics": "other_plugin:STAGE"}})
    assert pile("plan", "demo").returncode == 0
    listing = pile("plugins", "--json")
    assert listing.returncode == 1
    rows = [row for row in json.loads(listing.stdout) if row["problem"]]
    assert [row["package"] for row in rows] == ["example-plugin 0.1.0", "other-plugin 0.1.0"]
    found = "example-plugin 0.1.0 (example_plugin.stages:STAGE) and other-plugin 0.1.0 (other_plugin:STAGE)"
    assert {row["member"] for row in rows if found in row["problem"]} == {"statistics"}
    for asks in (["--set", "statistics={}"], ["--target", "statistics"]):
        refused = pile("plan", "demo", *asks)
        assert refused.returncode == 2
        assert found in refused.stderr.splitlines()[-1]


def test_names_of_ours_stay_ours(pile: Pile, site: Path) -> None:
    before = pile("plan", "demo", "--json").stdout
    own = {"sources": "files", "readers": "jsonl", "rules": "length", "families": "gpt2", "engines": "local"}
    own |= {"backends": "file", "stages": "download"}
    install(site, "bad", {f"pile_pipeline.{group}": {name: "bad:X"} for group, name in own.items()})
    assert pile("plan", "demo", "--json").stdout == before
    listing = pile("plugins", "--json")
    assert listing.returncode == 1
    rows = [row for row in json.loads(listing.stdout) if row["problem"]]
    assert sorted(row["member"] for row in rows) == sorted(own.values())
    assert {row["package"] for row in rows} == {"bad 0.1.0"}
    assert all(row["problem"].endswith("which stays; rename it or uninstall bad") for row in rows)


def test_backend_in_capitals_is_refused_where_its_scheme_is_asked_for(pile: Pile, site: Path) -> None:
    install(site, "cloud", {"pile_pipeline.backends": {"GS": "cloud:Backend"}})
    (site / "cloud.py").write_text("class Backend: pass")
    for url in ("gs://bucket", "GS://bucket"):
        refused = pile("ls", "--store", url)
        assert refused.returncode == 2
        assert "'GS' of cloud 0.1.0 (cloud:Backend) must be registered under a scheme, in lower" in refused.stderr
