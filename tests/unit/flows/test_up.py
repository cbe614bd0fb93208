"""What `pile up` asks of the folder that it is started in."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.service.up import CODE, check_folder
from flows.stages import STAGES
from storage.errors import InputError
from storage.registry import OWN_PACKAGE


@pytest.mark.parametrize("name", ["model", "storage.py"])
def test_folder_that_hides_our_packages_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"holds {name}; start it in another folder"):
        check_folder(tmp_path)


def test_folders_that_hide_nothing_are_taken(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    check_folder(tmp_path)
    check_folder(CODE)


def test_prefect_is_not_imported_before_the_address_of_the_server_is_set() -> None:
    # Prefect reads its settings when it is imported.
    code = "import sys, flows.command.up; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_stage_of_ours_has_a_deployment() -> None:
    listed = yaml.safe_load((CODE / "infra/prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    ours = [name for name, entry in STAGES.entries.items() if entry.package == OWN_PACKAGE]
    assert {each["name"]: each["parameters"]["target"] for each in listed} == {
        "full": "all",
        **dict(zip(ours, ours, strict=True)),
    }
