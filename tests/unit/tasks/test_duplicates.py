"""Who goes, against the definition written down without speed; and the parts that find who is to be compared."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.config import DedupConfig
from tasks.dedup.deciding import CONTAINED, FOUND_IN_TRAIN, HOLDS_HELD_OUT, NEAR
from tasks.dedup.duplicates import EXACT, Documents, Duplicates, find_duplicates
from tasks.dedup.indexes import least

BUCKETS = 3


@dataclass(frozen=True)
class Doc:
    """A document as dedup knows it."""

    text: int
    """Equal for equal texts."""
    shingles: frozenset[int]
    buckets: tuple[int, ...]
    near: bool = True
    held_out: bool = False
    earlier: bool = False


docs = st.builds(
    Doc,
    text=st.integers(0, 25),
    shingles=st.frozensets(st.integers(0, 12), max_size=9),
    buckets=st.tuples(*[st.integers(0, 4)] * BUCKETS),
    near=st.sampled_from([True, True, True, False]),
    held_out=st.booleans(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("duplicates")


def consistent(found: list[Doc], earlier: int = 0) -> list[Doc]:
    """Equal texts have all else in common but the split; earlier ones and held-out ones come first."""
    first: dict[int, Doc] = {}
    same = []
    for doc in found:
        of = first.setdefault(doc.text, doc)
        same.append(replace(doc, shingles=of.shingles, buckets=of.buckets, near=of.near))
    head = [replace(doc, earlier=True) for doc in same[:earlier]]
    return head + sorted(same[earlier:], key=lambda doc: not doc.held_out)


def as_documents(
    found: Sequence[Doc],
    config: DedupConfig,
    pairs: Sequence[tuple[int, int]] = (),
    gone: frozenset[int] = frozenset(),
) -> Documents:
    """Return what the shards' sketches would say; every document is looked up in every held-out one."""
    hits = [
        (t, h, len(holder.shingles & held.shingles))
        for t, holder in enumerate(found)
        for h, held in enumerate(found)
        if not holder.held_out and held.held_out and held.shingles
        if len(holder.shingles & held.shingles) >= least(len(held.shingles), config.held_out_containment)
    ]
    earlier = sum(doc.earlier for doc in found)
    order = [number for number in range(len(found)) if number not in gone]
    if config.longest_first:
        order = order[: earlier - len(gone)] + sorted(
            order[earlier - len(gone) :],
            key=lambda n: (not found[n].held_out, -len(found[n].shingles), n),
        )

    def shingles(numbers: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        assert numbers.tolist() == sorted(numbers.tolist())
        for part in np.array_split(numbers, 2):
            yield part, [np.array(sorted(found[n].shingles), np.uint32) for n in part.tolist()]

    return Documents(
        exact=np.array(
            [struct.unpack("<2Q", struct.pack("<QQ", doc.text % 3, doc.text)) for doc in found], np.uint64
        ).reshape(-1, 2),
        sizes=np.array([len(doc.shingles) for doc in found], np.uint32),
        near=np.array([doc.near and bool(doc.shingles) for doc in found], np.bool_),
        held_out=np.array([doc.held_out for doc in found], np.bool_),
        earlier=earlier,
        order=np.array(order, np.int64),
        hits=np.array(hits, np.int64).reshape(-1, 3),
        pairs=np.array(pairs, np.int64).reshape(-1, 2),
        bucket=lambda index: np.array([doc.buckets[index] for doc in found], np.uint64),
        shingles=shingles,
    )


def config_of(**fields: object) -> DedupConfig:
    return DedupConfig.model_validate({"num_buckets": BUCKETS, "hashes_per_bucket": 1, **fields})


def slow_duplicates(
    config: DedupConfig, documents: Documents, found: Sequence[Doc]
) -> dict[int, tuple[int, int, float]]:
    """The definition: dropped document -> (its twin, verdict, share)."""
    hits = {(t, h) for t, h, _ in documents.hits.tolist()}
    pairs = {frozenset(pair) for pair in documents.pairs.tolist()} | {frozenset(hit) for hit in hits}
    order = documents.order.tolist()
    dropped: dict[int, tuple[int, int, float]] = {}
    phrases = set()
    for t, h in hits & {(t, h) for t in order for h in order}:
        jaccard = len(found[t].shingles & found[h].shingles) / len(found[t].shingles | found[h].shingles)
        small = len(found[h].shingles) < config.held_out_min_shingles and not found[h].earlier
        if small and jaccard < config.min_similarity:
            phrases.add(h)
    kept: list[int] = []
    first: dict[int, int] = {}
    for d in sorted(order, key=lambda number: number in phrases):
        if found[d].text in first:
            twin = first[found[d].text]
            dropped[d] = dropped.get(twin, (twin, EXACT, 1.0))
            continue
        first[found[d].text] = d
        best = None
        for k in kept:
            agree = found[d].near and found[k].near and config.near_duplicates
            agree = agree and any(x == y for x, y in zip(found[d].buckets, found[k].buckets, strict=True))
            if not (found[d].shingles and found[k].shingles and (agree or frozenset((d, k)) in pairs)):
                continue
            reason = verdict(config, found[d], found[k])
            if reason is not None:
                rank = (found[k].held_out, reason[1], -kept.index(k))
                if best is None or rank > best[0]:
                    best = (rank, (k, *reason))
        if best is not None and not found[d].earlier:
            dropped[d] = best[1]
        else:
            kept.append(d)
    return {d: what for d, what in dropped.items() if not found[d].earlier}


def verdict(config: DedupConfig, document: Doc, kept: Doc) -> tuple[int, float] | None:
    common = len(document.shingles & kept.shingles)
    size, other = len(document.shingles), len(kept.shingles)
    jaccard = common / (size + other - common)
    if config.near_duplicates and document.near and kept.near and jaccard >= config.min_similarity:
        return NEAR, jaccard
    if kept.held_out and not document.held_out and common >= config.held_out_containment * other:
        return HOLDS_HELD_OUT, common / other
    if document.held_out and not kept.held_out and common >= config.held_out_containment * size:
        return FOUND_IN_TRAIN, common / size
    if config.min_containment is not None and common >= config.min_containment * size:
        return CONTAINED, common / size
    return None


def as_dict(found: Duplicates) -> dict[int, tuple[int, int, float]]:
    columns = (found.documents, found.twins, found.verdicts, found.shares)
    return {d: (k, v, s) for d, k, v, s in zip(*(column.tolist() for column in columns), strict=True)}


configs = st.builds(
    config_of,
    min_similarity=st.sampled_from([0.1, 0.35, 0.5, 0.8, 1.0]),
    near_duplicates=st.sampled_from([True, True, False]),
    keep=st.sampled_from(["first", "longest"]),
    min_containment=st.sampled_from([None, 0.5, 0.8]),
    held_out_min_shingles=st.integers(1, 6),
)


@settings(max_examples=400, deadline=None)
@given(
    found=st.lists(docs, max_size=25),
    earlier=st.integers(0, 8),
    config=configs,
    pairs=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=6),
)
def test_documents_that_go_are_those_of_the_slow_definition(
    folder: Path, found: list[Doc], earlier: int, config: DedupConfig, pairs: list[tuple[int, int]]
) -> None:
    found = consistent(found, earlier)
    pairs = [(a, b) for a, b in pairs if a < len(found) and b < len(found)]
    gone = frozenset(number for number, doc in enumerate(found) if doc.earlier and number % 3 == 2)
    documents = as_documents(found, config, pairs, gone)

    duplicates = find_duplicates(config, documents, folder, threads=2)

    expected = slow_duplicates(config, documents, found)
    assert as_dict(duplicates).keys() == expected.keys()
    for number, (twin, why, share) in as_dict(duplicates).items():
        assert (twin, why) == expected[number][:2]
        assert share == pytest.approx(expected[number][2], abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(found=st.lists(docs, max_size=25), cut=st.integers(0, 25), threshold=st.sampled_from([0.2, 0.5, 0.8]))
def test_documents_that_come_later_change_nothing_about_earlier_ones(
    folder: Path, found: list[Doc], cut: int, threshold: float
) -> None:
    config = config_of(min_similarity=threshold)
    found = consistent([replace(doc, held_out=False) for doc in found])

    everything = as_dict(find_duplicates(config, as_documents(found, config), folder, 1))
    first = as_dict(find_duplicates(config, as_documents(found[:cut], config), folder, 1))
    head = [replace(doc, earlier=True) for doc in found[:cut]]
    second = as_dict(
        find_duplicates(config, as_documents([*head, *found[cut:]], config, gone=frozenset(first)), folder, 1)
    )

    assert {d: what for d, what in everything.items() if d < cut} == first
    # A copy of a document that went goes for the same twin, or, if that one is not there any more, for its own.
    assert {d for d in everything if d >= cut} == second.keys()
    assert not {twin for twin, _, _ in second.values()} & {*first, *second}


def test_similarity_does_not_drift_along_a_chain(folder: Path) -> None:
    chain = [Doc(n, frozenset(range(n, n + 8)), (0, 0, 0)) for n in range(0, 10, 2)]  # 6 of 10 in common
    config = config_of(min_similarity=0.6)

    found = find_duplicates(config, as_documents(chain, config), folder, 1)

    # 1 is like 0 and goes; 2 is like 1 only, so it stays, and 3 is like 2; 4 is like 3 only.
    assert dict(zip(found.documents.tolist(), found.twins.tolist(), strict=True)) == {1: 0, 3: 2}


def test_similarities_of_all_pairs_that_are_compared_are_counted(folder: Path) -> None:
    shingles = (range(10), range(5, 15), range(100, 110))  # 5 of 15 in common, and none
    config = config_of(min_similarity=0.5)

    found = find_duplicates(
        config, as_documents([Doc(n, frozenset(s), (0, 0, 0)) for n, s in enumerate(shingles)], config), folder, 1
    )

    assert {percent: count for percent, count in enumerate(found.similarities.tolist()) if count} == {33: 1, 0: 2}


def test_bridge_between_two_documents_joins_no_more_than_one_of_them(folder: Path) -> None:
    first, second = frozenset(range(10)), frozenset(range(5, 15))
    bridge = frozenset(range(2, 13))
    config = config_of(min_similarity=0.5)
    found = [Doc(n, shingles, (0, 0, 0)) for n, shingles in enumerate((first, bridge, second))]

    assert as_dict(find_duplicates(config, as_documents(found, config), folder, 1)).keys() == {1}


def test_of_equally_similar_twins_it_is_the_first(folder: Path) -> None:
    # Earlier artifacts may hold two that are alike; 1/9 is another number with 24 bits than with 53.
    twins = [Doc(n, frozenset(range(9)), (0, 0, 0), earlier=True) for n in range(2)]
    config = config_of(min_similarity=0.1)

    found = find_duplicates(config, as_documents([*twins, Doc(2, frozenset({0}), (0, 0, 0))], config), folder, 1)

    assert (found.documents.tolist(), found.twins.tolist()) == ([2], [0])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_corpus_without_duplicates_loses_nothing(folder: Path, count: int) -> None:
    found = [Doc(n, frozenset(range(10 * n, 10 * n + 5)), (n, n, n)) for n in range(count)]
    config = config_of()

    assert not len(find_duplicates(config, as_documents(found, config), folder, 1).documents)
