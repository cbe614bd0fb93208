"""Installed packages: members are listed, a recipe runs their stages, and a broken one harms no other."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "tests" / "example_plugin"

Pile = Callable[..., "subprocess.CompletedProcess[str]"]


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
        "place": "example_plugin.stages:STAGE",
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


@pytest.mark.usefixtures("example")
def test_two_packages_with_one_name_are_refused(pile: Pile, site: Path) -> None:
    install(site, "other-plugin", {"pile_pipeline.stages": {"statistics": "other_plugin:STAGE"}})
    refused = pile("plan", "demo")
    assert refused.returncode == 2
    assert "must come from one package, found it in example-plugin and other-plugin" in refused.stderr
