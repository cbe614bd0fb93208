"""What `pile up` asks of the folder that it is started in."""

from pathlib import Path

import pytest

from flows.service.up import CODE, check_folder
from storage.errors import InputError


@pytest.mark.parametrize("name", ["model", "storage.py"])
def test_folder_that_hides_our_packages_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"holds {name}; start it in another folder"):
        check_folder(tmp_path)


def test_folders_that_hide_nothing_are_taken(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    check_folder(tmp_path)
    check_folder(CODE)
