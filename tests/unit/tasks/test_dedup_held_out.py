"""What dedup promises about held-out text, where several things meet; and corpora of many parts."""

import os
import resource
from pathlib import Path
from random import Random

from tasks.dedup.config import DedupConfig
from tests.unit.tasks.deduping import dropped, make_filtered, random_text, run_dedup


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


def test_held_out_document_may_hold_another_one(tmp_path: Path) -> None:
    random = Random(22)
    texts = [random_text(random, 100) for _ in range(20)]
    longer = [f"{text} {random_text(random, 120)}" for text in texts]  # similarity 0.44: most share a bucket
    corpus = make_filtered(
        tmp_path, {"test-00000": [("S", text) for text in texts], "val-00000": [("S", text) for text in longer]}
    )

    assert dropped(run_dedup(corpus)) == []


def test_share_that_is_not_a_binary_fraction_is_enough(tmp_path: Path) -> None:
    random = Random(23)
    held = random_text(random, 104).split()  # 100 shingles, and 0.55 * 100 is a bit more than 55
    text = f"{' '.join(held[:59])} {random_text(random, 300)}"
    corpus = make_filtered(tmp_path, {"train-00000": [("S", text)], "val-00000": [("S", " ".join(held))]})

    (row,) = dropped(run_dedup(corpus, DedupConfig(held_out_containment=0.55)))

    assert (row.reason, row.value) == ("holds-held-out-text", 0.55)
