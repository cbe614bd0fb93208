"""What dedup promises about held-out text, where several things meet; and corpora of many parts."""

import os
import resource
from pathlib import Path
from random import Random

from tests.unit.tasks.deduping import make_filtered, random_text, run_dedup


def test_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    random = Random(24)
    corpus = make_filtered(tmp_path, {f"train-{n:05d}": [("S", random_text(random, 20))] for n in range(40)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 25, hard))
    try:
        artifact = run_dedup(corpus)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert artifact.counts["documents"] == 40
