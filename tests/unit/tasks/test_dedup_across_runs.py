"""Against earlier artifacts, and one lot after the other: as all at once, without the earlier text."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.formats.drops import DROPS
from storage.formats.shingles import SHINGLES
from tasks.dedup.config import DedupConfig
from tests.unit.tasks.deduping import (
    dropped,
    edited,
    kept_ids,
    make_filtered,
    random_text,
    run_dedup,
)


def a_corpus(seed: int, documents: int = 240) -> list[str]:
    """Return texts with exact, near and chained duplicates of each other in a random order."""
    random = Random(seed)
    texts = [random_text(random, random.randrange(60, 200)) for _ in range(documents // 4)]
    texts += [edited(random, random.choice(texts), share) for share in (0, 0.01, 0.05, 0.1) for _ in range(45)]
    random.shuffle(texts)
    return texts


@pytest.mark.parametrize("cuts", [(120,), (40, 200), (1, 80, 160)])
def test_one_lot_after_the_other_is_equal_to_all_at_once(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    texts = a_corpus(15)
    held_out = [("S", random_text(Random(16))), ("S", texts[3])]
    at_once = make_filtered(
        tmp_path, {"train-00000": [("S", text) for text in texts], "val-00000": held_out}, key="a" * 16
    )
    whole = {row.index for row in dropped(run_dedup(at_once)) if row.id.startswith("train")}

    found: set[int] = set()
    keys: tuple[str, ...] = ()
    for number, (begin, end) in enumerate(pairwise((0, *cuts, len(texts)))):
        parts = {"train-00000": [("S", text) for text in texts[begin:end]]}
        if not number:
            parts["val-00000"] = held_out
        lot = make_filtered(tmp_path, parts, key=f"{number}" * 16)
        artifact = run_dedup(lot, DedupConfig(against=keys))
        keys = (artifact.manifest.key,)  # of which each names the one before it
        found |= {begin + row.index for row in dropped(artifact) if row.id.startswith("train")}

    assert found == whole
    assert len(whole) > 60


def test_earlier_text_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = a_corpus(17)
    old = run_dedup(make_filtered(tmp_path, {"train-00000": [("S", text) for text in texts[:120]]}, key="1" * 16))
    new = make_filtered(tmp_path, {"train-00000": [("S", text) for text in texts[120:]]}, key="2" * 16)
    opened: list[tuple[str, str]] = []
    open_file = Artifact.open

    def watched(artifact: Artifact, file: StoredFile) -> Path:
        opened.append((artifact.ref, file.role))
        return open_file(artifact, file)

    monkeypatch.setattr(Artifact, "open", watched)
    artifact = run_dedup(new, DedupConfig(against=(old.manifest.key,)))

    assert {role for ref, role in opened if ref in (old.ref, f"filter/{'1' * 16}")} == {SHINGLES, DROPS}
    twins = [row for row in dropped(artifact) if row.twin_artifact]
    assert {row.twin_artifact for row in twins} == {old.manifest.key}
    left = {id for ids in kept_ids(old).values() for id in ids}
    assert {row.twin_id for row in twins} <= left
    lines = [json.loads(line) for line in (artifact.report("duplicate_samples.jsonl") or b"").splitlines()]
    assert {line["kept"].get("artifact", "") for line in lines} <= {"", old.manifest.key}


def test_new_held_out_text_that_stands_in_earlier_training_text_goes(tmp_path: Path) -> None:
    random = Random(18)
    held = random_text(random, 100)
    old = run_dedup(
        make_filtered(tmp_path, {"train-00000": [("S", f"{held} {random_text(random, 900)}")]}, key="1" * 16)
    )
    new = make_filtered(
        tmp_path, {"train-00000": [("S", random_text(random))], "val-00000": [("S", held)]}, key="2" * 16
    )

    (row,) = dropped(run_dedup(new, DedupConfig(against=(old.manifest.key,))))

    assert (row.id, row.reason, row.twin_artifact) == ("val-00000:0", "found-in-training-text", old.manifest.key)


def test_artifact_that_is_not_there_is_refused(tmp_path: Path) -> None:
    corpus = make_filtered(tmp_path, {"train-00000": [("S", "a")]})

    with pytest.raises(InputError, match=r"dedup\.against.*0123456789abcdef.*pile ls"):
        run_dedup(corpus, DedupConfig(against=("0123456789abcdef",)))


@pytest.mark.parametrize("key", ["nonsense", "dedup/12", "../0123456789abcdef", "0123456789ABCDEF"])
def test_what_is_no_key_is_refused_before_any_work(key: str) -> None:
    with pytest.raises(ValueError, match=r"16 hexadecimal digits.*pile ls"):
        DedupConfig(against=(key,))


def test_key_may_be_written_as_it_is_shown() -> None:
    assert DedupConfig(against=("dedup/0123456789abcdef",)) == DedupConfig(against=("0123456789abcdef",))
