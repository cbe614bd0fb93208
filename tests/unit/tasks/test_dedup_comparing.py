"""The parts that find which documents are compared: links between equal hashes, and indexes of shingles."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.dedup.links
from tasks.dedup.indexes import SMALLEST, HeldOutIndex, containment_index
from tasks.dedup.links import first_equals, previous_equals


@settings(max_examples=100, deadline=None)
@given(
    hashes=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.booleans()), max_size=60),
    table_bits=st.sampled_from([3, 4, 24]),
    prefix=st.sampled_from([0, 1 << 62]),
)
def test_previous_equals_are_those_of_the_slow_search(
    hashes: list[tuple[int, int, bool]], table_bits: int, prefix: int
) -> None:
    # Few bits force pieces; hashes that begin alike overflow the table of theirs.
    firsts = np.array([a + prefix for a, _, _ in hashes], np.uint64)
    seconds = np.array([b for _, b, _ in hashes], np.uint64)
    wanted = np.array([c for _, _, c in hashes], np.bool_)
    back = np.random.default_rng(len(hashes)).permutation(len(hashes))  # hashes lie in another order
    last: dict[tuple[int, int], int] = {}
    expected = []
    for number, (a, b, is_wanted) in enumerate(hashes):
        expected.append(last.get((a, b), 2**32 - 1) if is_wanted else 2**32 - 1)
        if is_wanted:
            last[a, b] = number
    before = tasks.dedup.links.TABLE_BITS
    tasks.dedup.links.TABLE_BITS = table_bits
    try:
        found = previous_equals(firsts[back], seconds[back], np.argsort(back), wanted)
        assert found.tolist() == expected
    finally:
        tasks.dedup.links.TABLE_BITS = before


def test_pieces_find_what_one_table_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(5)
    firsts = chance.integers(0, 2**64, 3000, dtype=np.uint64)[chance.integers(0, 3000, 5000)]
    whole = first_equals(firsts, firsts, np.arange(5000))
    monkeypatch.setattr(tasks.dedup.links, "TABLE_BITS", 9)

    assert np.array_equal(first_equals(firsts, firsts, np.arange(5000)), whole)


# ---- indexes -------------------------------------------------------------------------------------------------

small_sets = st.lists(st.frozensets(st.integers(0, 40), max_size=14), max_size=12)


@settings(max_examples=200, deadline=None)
@given(indexed=small_sets, asked=small_sets, share=st.sampled_from([0.5, 0.8, 1.0]))
def test_index_of_held_out_text_misses_nothing(
    indexed: list[frozenset[int]], asked: list[frozenset[int]], share: float
) -> None:
    # Spread over all 32 bits, as hashes are.
    index = HeldOutIndex.of_documents([as_shingles(document) for document in indexed], share)

    for document in asked:
        expected = {
            (number, len(held & document))
            for number, held in enumerate(indexed)
            if held and len(held & document) >= share * len(held)
        }
        assert set(index.held_by(as_shingles(document), share)) == expected


def as_shingles(document: frozenset[int]) -> np.ndarray:
    return np.array(sorted(number * 104_729_001 % 2**32 for number in document), np.uint32)


def test_longer_documents_are_found_by_half_of_the_smallest_shingles() -> None:
    random = Random(6)
    documents = [sorted(random.sample(range(2**32), random.randrange(1, 60))) for _ in range(50)]
    smallest = np.array([(document + [0] * SMALLEST)[:SMALLEST] for document in documents], np.uint32)
    index = containment_index(smallest, np.array([len(document) for document in documents], np.uint32))

    for asked in documents:
        others = random.sample(range(2**32), 100)
        held = sorted({*others, *random.sample(asked, (len(asked) + 1) // 2)})
        expected = {
            number
            for number, document in enumerate(documents)
            if len({*document[:SMALLEST]} & {*held}) * 2 >= min(len(document), SMALLEST)
        }
        assert set(index.owners(np.array(held, np.uint32))) == expected
