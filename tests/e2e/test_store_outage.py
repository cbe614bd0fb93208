import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("store_outage.py")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_store_that_is_gone_for_a_while_in_each_stage_changes_nothing(silent: bool, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--seconds", "6", "--folder", str(tmp_path), *["--silent"] * silent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    assert len(result["stages_hit"]) == 9
    assert result["holds"], done.stdout
