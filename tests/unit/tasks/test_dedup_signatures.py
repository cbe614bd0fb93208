"""MinHash: the smallest hashes, which pairs they find, and the layout that follows from a threshold."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.formats.shingles import ShingleRows
from tasks.dedup.config import Bands, DedupConfig
from tasks.dedup.signatures import Signer

KNOWN = [8856222858268325382, 8881248031945640225, 531327260021755688]

sets = st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=30)


def as_rows(documents: list[list[int]]) -> ShingleRows:
    ends = np.cumsum([0, *map(len, documents)])
    shingles = np.array([shingle for document in documents for shingle in sorted(document)], np.uint32)
    nothing = np.zeros((len(documents), 2), np.uint64)
    return ShingleRows(nothing, np.ones(len(documents), np.bool_), ends.astype(np.int64), shingles)


def buckets(documents: list[list[int]], bands: Bands, seed: int = 1) -> np.ndarray:
    rows = as_rows(documents)
    return Signer(bands, seed).buckets(rows, rows.near)


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(sets, max_size=8), count=st.integers(1, 6), hashes=st.integers(1, 4))
def test_documents_agree_in_a_bucket_exactly_if_the_slow_smallest_hashes_do(
    documents: list[list[int]], count: int, hashes: int
) -> None:
    bands = Bands(count, hashes)
    drawn = [int(value) for value in np.random.PCG64(1).random_raw(count * hashes)]
    slow = [
        [
            min((((value >> 32) | 1) * shingle + value) % 2**32 for shingle in document) if document else None
            for value in drawn
        ]
        for document in documents
    ]

    found = buckets(documents, bands)

    for bucket in range(count):
        part = slice(bucket * hashes, (bucket + 1) * hashes)
        for one, first in enumerate(slow):
            for other, second in enumerate(slow):
                if documents[one] and documents[other]:
                    assert (found[bucket, one] == found[bucket, other]) == (first[part] == second[part])


def test_buckets_of_known_shingles_never_change() -> None:
    # They lie in stores until a stage is done: other numbers here mean that the stage's version must be raised.
    assert buckets([[1, 2, 3, 2**32 - 1]], Bands(3, 2))[:, 0].tolist() == KNOWN


def test_documents_that_are_not_wanted_are_not_signed() -> None:
    rows = as_rows([[1, 2, 3], [1, 2, 3]])

    found = Signer(Bands(4, 2), 1).buckets(rows, np.array([True, False]))

    assert found[:, 0].all()
    assert not found[:, 1].any()


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8])
def test_agreement_in_single_hashes_estimates_the_jaccard_similarity(similarity: float) -> None:
    chance = np.random.default_rng(3)
    common = round(600 * similarity / (1 + similarity))
    estimates = []
    for seed in range(40):
        drawn = chance.choice(2**32, 600 - common, replace=False).tolist()
        found = buckets([drawn[:300], drawn[300 - common :]], Bands(256, 1), seed)
        estimates.append(float(np.mean(found[:, 0] == found[:, 1])))
    # Standard error of a mean of 40 estimates from 256 hashes: 0.005 at most.
    assert abs(np.mean(estimates) - common / (600 - common)) < 0.015


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.7, 0.9, 0.96, 1.0])
@pytest.mark.parametrize("recall", [0.9, 0.98, 0.995])
def test_layout_finds_the_stated_share_above_the_threshold(threshold: float, recall: float) -> None:
    bands = DedupConfig(min_similarity=threshold, min_recall=recall).bands
    similarity = min(threshold + 0.05, (threshold + 1) / 2)

    assert 1 - (1 - similarity**bands.hashes) ** bands.buckets >= recall - 1e-9
    assert bands.recall(similarity) == pytest.approx(1 - (1 - similarity**bands.hashes) ** bands.buckets)
    assert bands.buckets * bands.hashes <= 256


def test_share_of_pairs_found_is_the_one_of_the_formula() -> None:
    chance, random = np.random.default_rng(4), Random(4)
    bands = DedupConfig().bands
    for common in (60, 100, 140):  # of 200 shingles: similarity 0.18, 0.33, 0.54
        documents = []
        for _ in range(400):
            drawn = chance.choice(2**32, 400 - common, replace=False).tolist()
            documents += [drawn[:200], drawn[200 - common :]]
        found = buckets(documents, bands, random.randrange(1000))
        share = float(np.mean((found[:, 0::2] == found[:, 1::2]).any(axis=0)))
        expected = bands.recall(common / (400 - common))
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 400) + 0.005


def test_own_layout_needs_both_numbers() -> None:
    assert DedupConfig(num_buckets=14, hashes_per_bucket=8).bands == Bands(14, 8)
    with pytest.raises(ValueError, match="set together"):
        DedupConfig(num_buckets=14)
