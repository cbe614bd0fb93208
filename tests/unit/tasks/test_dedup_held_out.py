"""What dedup promises about held-out text, where several things meet; and corpora of many parts."""

import os
import resource
from pathlib import Path
from random import Random

import pytest

from storage.errors import InputError
from storage.formats.shingles import Shingles
from tasks.dedup.config import DedupConfig
from tasks.dedup.corpus import NumberedShards
from tests.unit.tasks.deduping import dropped, kept_ids, make_filtered, random_text, run_dedup


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


def test_held_out_phrase_stays_if_all_text_around_it_goes(tmp_path: Path) -> None:
    random = Random(21)
    phrase, held = random_text(random, 8), random_text(random, 100)
    book = f"{held} {phrase} {random_text(random, 100)}"
    corpus = make_filtered(tmp_path, {"train-00000": [("S", book)], "val-00000": [("S", phrase), ("S", held)]})

    artifact = run_dedup(corpus)

    assert kept_ids(artifact) == {"train-00000": [], "val-00000": ["val-00000:0", "val-00000:1"]}
    assert [row.twin_id for row in dropped(artifact)] == ["val-00000:1"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_phrase_that_is_held_out_twice_goes_twice(tmp_path: Path, split: str) -> None:
    random = Random(27)
    phrase = random_text(random, 8)
    book = f"{random_text(random, 100)} {phrase} {random_text(random, 100)}"
    corpus = make_filtered(
        tmp_path,
        {"train-00000": [("S", book)], "val-00000": [("S", phrase)], f"{split}-00001": [("S", f" {phrase}")]},
    )

    kept = kept_ids(run_dedup(corpus))

    assert kept == {"train-00000": ["train-00000:0"], "val-00000": [], f"{split}-00001": []}


def test_artifact_with_other_shingles_is_refused(tmp_path: Path) -> None:
    text = random_text(Random(26))
    earlier = run_dedup(
        make_filtered(tmp_path, {"train-00000": [("S", text)]}, {"train-00000": Shingles(words=3)})
    )
    corpus = make_filtered(tmp_path, {"train-00000": [("S", text)]}, key="1" * 16)

    with pytest.raises(InputError, match=r"dedup.against must .*words=5.*words=3.*set filter.shingles"):
        run_dedup(corpus, DedupConfig(against=(earlier.manifest.key,)))


def test_held_out_text_is_looked_up_once_however_often_it_occurs(tmp_path: Path) -> None:
    held = random_text(Random(28), 100)
    parts = {"val-00000": [("S", held)] * 3, "test-00000": [("S", held)], "train-00000": [("S", held)]}
    corpus = make_filtered(tmp_path, parts)
    earlier = run_dedup(corpus)

    found = list(NumberedShards(corpus, [earlier]).held_out_shingles())

    assert [len(shingles) for shingles in found] == [96, *[0] * 7]
    assert kept_ids(earlier)["train-00000"] == []
