import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster
from datatrove.pipeline.dedup.minhash import MinhashConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.formats.minhash import MinHash
from storage.formats.signatures import SignatureWriter
from tasks.dedup.clusters import CorpusSignatures, Duplicates, find_duplicates

LAYOUT = MinHash(num_buckets=4, hashes_per_bucket=2)

# Few values in each position: buckets collide often, and clusters are long chains.
signatures = st.lists(st.integers(0, 2), min_size=LAYOUT.hashes, max_size=LAYOUT.hashes)
rows = st.lists(st.tuples(st.integers(0, 30), st.none() | signatures), min_size=1, max_size=40)
Row = tuple[int, Sequence[int] | None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signatures")


def consistent(found: list[Row]) -> list[Row]:
    """Give equal texts equal signatures."""
    first: dict[int, Sequence[int] | None] = {}
    return [(text, first.setdefault(text, signature)) for text, signature in found]


def write_shards(folder: Path, shards: Sequence[Sequence[Row]], layout: MinHash = LAYOUT) -> list[Path]:
    paths = [folder / f"{number}.parquet" for number in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        with SignatureWriter(path, layout) as writer:
            for text, signature in shard:
                writer.write(
                    struct.pack("<2Q", text % 2, text), None if signature is None else as_array(signature)
                )
    return paths


def as_array(signature: Sequence[int]) -> np.ndarray:
    return np.array(signature, np.uint64)


def find(folder: Path, shards: Sequence[Sequence[Row]], min_similarity: float, *, near: bool = True) -> Duplicates:
    corpus = CorpusSignatures(write_shards(folder, shards), folder / "scratch")
    return find_duplicates(corpus, near=near, min_similarity=min_similarity)


def slow_duplicates(found: list[Row], needed: int) -> dict[int, tuple[int, bool]]:
    """The definition, written down without speed: dropped document -> (kept document, is near duplicate)."""
    exact = {n: next(m for m in range(n + 1) if found[m][0] == found[n][0]) for n in range(len(found))}
    single = [n for n in range(len(found)) if exact[n] == n and found[n][1] is not None]

    def equal(first: int, second: int) -> int:
        return sum(x == y for x, y in zip(found[first][1] or (), found[second][1] or (), strict=True))

    parent = {n: n for n in single}

    def root(n: int) -> int:
        return n if parent[n] == n else root(parent[n])

    for bucket in range(LAYOUT.num_buckets):
        groups: dict[tuple[int, ...], list[int]] = {}
        for n in single:
            start = bucket * LAYOUT.hashes_per_bucket
            groups.setdefault(tuple((found[n][1] or ())[start : start + LAYOUT.hashes_per_bucket]), []).append(n)
        for group in groups.values():
            for place, n in enumerate(group[1:], 1):
                for other in {group[0], group[place - 1]}:
                    if equal(other, n) >= needed:
                        parent[root(n)] = root(other)
    kept: dict[int, int] = {}
    leaders: dict[int, list[int]] = {}
    for n in single:
        alike = [leader for leader in leaders.get(root(n), []) if equal(leader, n) >= needed]
        if alike:
            kept[n] = alike[0]
        else:
            leaders.setdefault(root(n), []).append(n)
    dropped = {n: (leader, True) for n, leader in kept.items()}
    for n, original in exact.items():
        if n != original:
            dropped[n] = (kept.get(original, original), False)
    return dropped


@settings(max_examples=150, deadline=None)
@given(found=rows.map(consistent), cut=st.integers(0, 40), needed=st.integers(0, LAYOUT.hashes))
def test_duplicates_are_those_of_the_slow_definition(
    folder: Path, found: list[Row], cut: int, needed: int
) -> None:
    duplicates = find(folder, [found[:cut], found[cut:]], needed / LAYOUT.hashes)

    expected = slow_duplicates(found, needed)
    assert {
        document: (kept, is_near)
        for document, kept, is_near in zip(
            duplicates.documents.tolist(), duplicates.kept.tolist(), duplicates.is_near.tolist(), strict=True
        )
    } == expected
    for document, similarity in zip(duplicates.documents.tolist(), duplicates.similarity.tolist(), strict=True):
        kept, is_near = expected[document]
        if is_near:
            first, second = as_array(found[kept][1] or ()), as_array(found[document][1] or ())
            assert similarity == np.mean(first == second) >= needed / LAYOUT.hashes
        else:
            assert similarity == 1


@settings(max_examples=25, deadline=None)
@given(found=st.lists(signatures, min_size=1, max_size=40), cut=st.integers(0, 40))
def test_dropped_documents_are_those_of_datatrove_when_nothing_is_verified(
    tmp_path_factory: pytest.TempPathFactory, found: list[list[int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("oracle")
    shards = [
        [(n, found[n]) for n in range(cut) if n < len(found)],
        [(n, found[n]) for n in range(cut, len(found))],
    ]

    ours = find(folder, shards, 0.0)

    clusters = datatrove_clusters(folder, shards)
    # The one that stays is chosen differently: datatrove keeps the root of its tree, we keep the first.
    expected = {n: min(cluster) for cluster in clusters for n in cluster if n != min(cluster)}
    assert dict(zip(ours.documents.tolist(), ours.kept.tolist(), strict=True)) == expected


def datatrove_clusters(folder: Path, shards: Sequence[Sequence[Row]]) -> list[set[int]]:
    """Run datatrove's stages 2 and 3 on our signatures, written in the format of its stage 1."""
    config = MinhashConfig(num_buckets=LAYOUT.num_buckets, hashes_per_bucket=LAYOUT.hashes_per_bucket)
    width = LAYOUT.hashes_per_bucket
    for bucket in range(LAYOUT.num_buckets):
        target = folder / "signatures" / f"bucket_{bucket:03d}"
        target.mkdir(parents=True)
        for rank, shard in enumerate(shards):
            records = sorted(
                (*(signature or ())[bucket * width : (bucket + 1) * width], index)
                for index, (_, signature) in enumerate(shard)
            )
            packed = b"".join(struct.pack(f"<{width}QI", *record) for record in records)
            (target / f"{rank:05d}.minhash.sig").write_bytes(packed)
    for bucket in range(LAYOUT.num_buckets):
        MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config).run(
            None, bucket, LAYOUT.num_buckets
        )
    MinhashDedupCluster(
        str(folder / "buckets"), str(folder / "clusters"), config=config, save_cluster_id=True
    ).run(None, 0, 1)
    begins = [0, len(shards[0])]
    clusters: dict[int, set[int]] = {}
    for rank, begin in enumerate(begins):
        path = folder / "clusters" / f"{rank:06d}.clusters"
        for index, cluster in struct.iter_unpack("<2I", path.read_bytes() if path.exists() else b""):
            clusters.setdefault(cluster, set()).add(begin + index)
    return list(clusters.values())


def test_similarity_does_not_drift_along_a_chain(folder: Path) -> None:
    chain = [[0] * step + [1] * (8 - step) for step in range(0, 9, 2)]  # neighbours share 6 of 8 positions

    found = find(folder, [[(n, signature) for n, signature in enumerate(chain)]], 0.75)

    # 1 is like 0 and dropped; 2 is like 1 only, so it stays, and 3 is like 2; 4 is like 3 only.
    assert dict(zip(found.documents.tolist(), found.kept.tolist(), strict=True)) == {1: 0, 3: 2}


def test_duplicates_of_a_corpus_without_signatures_are_the_exact_ones(folder: Path) -> None:
    found = find(folder, [[(1, None), (2, None)], [], [(2, None), (1, None), (1, None)]], 0.5)

    assert found.documents.tolist() == [2, 3, 4]
    assert found.kept.tolist() == [1, 0, 0]
    assert not found.is_near.any()


def test_corpus_without_documents_has_no_duplicates(folder: Path) -> None:
    assert len(find(folder, [[], []], 0.5).documents) == 0
    assert len(find(folder, [], 0.5).documents) == 0


def test_large_layout_and_many_documents_agree_with_one_bucket_per_document(folder: Path) -> None:
    layout = MinHash()
    random = np.random.PCG64(0)
    bases = [random.random_raw(layout.hashes) for _ in range(2000)]
    copies = [base.copy() for base in bases]
    for copy in copies:
        copy[: layout.hashes // 10] = 0  # 10 % of positions differ; all buckets but the first two agree
    corpus = CorpusSignatures(
        write_shards(
            folder, [list(enumerate(bases)), [(n + 2000, copy) for n, copy in enumerate(copies)]], layout
        ),
        folder / "scratch",
    )

    found = find_duplicates(corpus, near=True, min_similarity=0.7)

    assert found.documents.tolist() == list(range(2000, 4000))
    assert found.kept.tolist() == list(range(2000))
    assert np.allclose(found.similarity, 1 - (layout.hashes // 10) / layout.hashes)
