from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
import pytest
from datatrove.utils.text import simplify_text
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import CorruptFileError
from storage.formats.minhash import MinHash
from storage.formats.signatures import SignatureWriter, read_layout, read_signatures
from tasks.filter.exact import exact_hash
from tasks.filter.kernels import smallest
from tasks.filter.signatures import Signer, n_gram_hashes
from tasks.filter.words import DocumentWords

KNOWN = [283877731413032215, 8957111589228439069, 1545240298339640476]

hash_arrays = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40).map(lambda v: np.array(v, np.uint64))


def random_words(random: Random, count: int) -> list[str]:
    return ["".join(random.choices("abcdefgh", k=4)) for _ in range(count)]


def signature(text: str, layout: MinHash) -> np.ndarray:
    signed = Signer(layout).signature(DocumentWords(text).normalised)
    assert signed is not None
    return signed


def jaccard(first: str, second: str, size: int) -> float:
    sets = []
    for text in (first, second):
        words = simplify_text(text).split()
        sets.append({tuple(words[start : start + size]) for start in range(len(words) - size + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_exact_hash_ignores_outer_white_space_and_nothing_else() -> None:
    assert exact_hash("a text") == exact_hash("\n a text\t")
    hashes = {exact_hash(text) for text in ("a text", "a  text", "A text", "a text.", "")}
    assert len(hashes) == 5
    assert {len(value) for value in hashes} == {16}


@settings(max_examples=50, deadline=None)
@given(hash_arrays, hash_arrays, st.data())
def test_smallest_hashes_are_those_of_whole_numbers(
    hashes: np.ndarray, factors: np.ndarray, data: st.DataObject
) -> None:
    summands = data.draw(
        st.lists(st.integers(0, 2**64 - 1), min_size=len(factors), max_size=len(factors)).map(
            lambda values: np.array(values, np.uint64)
        )
    )
    expected = [
        min((int(a) * int(h) + int(b)) % 2**64 for h in hashes) for a, b in zip(factors, summands, strict=True)
    ]

    assert smallest(hashes, factors, summands).tolist() == expected


def test_signature_of_a_known_text_never_changes() -> None:
    # Signatures lie in stores: other numbers here mean that the stage's version must be raised.
    found = signature("It was the best of times, it was the worst of times.", MinHash())

    assert found.shape == (112,)
    assert found[:3].tolist() == KNOWN
    assert not np.array_equal(
        found, signature("It was the best of times, it was the worst of times.", MinHash(seed=2))
    )


def test_n_gram_hashes_are_equal_exactly_for_equal_n_grams() -> None:
    words = np.array([Random(i).randrange(4) for i in range(300)], np.uint64)
    hashes = n_gram_hashes(words, 3).tolist()
    grams = [tuple(words[start : start + 3].tolist()) for start in range(298)]

    assert len(set(zip(hashes, grams, strict=True))) == len(set(hashes)) == len(set(grams))
    assert all(first != second for first, second in pairwise(n_gram_hashes(np.arange(100, dtype=np.uint64), 1)))


@pytest.mark.parametrize("text", ["", "... --", "four words are short", "1.5 2,5 3.5 4.5"])
def test_text_with_fewer_words_than_an_n_gram_has_no_signature(text: str) -> None:
    assert Signer(MinHash()).signature(DocumentWords(text).normalised) is None


def test_equal_positions_estimate_the_jaccard_similarity_of_the_n_grams() -> None:
    random = Random(1)
    layout = MinHash(num_buckets=64, hashes_per_bucket=16)
    for changed_words in (0, 2, 10, 40, 120):
        words = random_words(random, 400)
        edited = list(words)
        for place in random.sample(range(400), changed_words):
            edited[place] = "edited"
        first, second = " ".join(words), " ".join(edited)
        estimate = float(np.mean(signature(first, layout) == signature(second, layout)))
        # Standard error at 1024 positions is at most 0.016.
        assert abs(estimate - jaccard(first, second, 5)) < 0.07


def test_signature_ignores_case_punctuation_and_line_breaks() -> None:
    assert np.array_equal(
        signature("The cat, 12.5 years old, sat on the mat.", MinHash()),
        signature("the CAT\n7 years old sat; on the-mat", MinHash()),
    )


def test_signature_file_gives_back_what_was_written(tmp_path: Path) -> None:
    layout = MinHash(num_buckets=3, hashes_per_bucket=2, seed=7)
    rows = [(exact_hash(str(i)), None if i % 3 == 0 else np.arange(6, dtype=np.uint64) + i) for i in range(20_000)]
    with SignatureWriter(tmp_path / "file.parquet", layout) as writer:
        for exact, signed in rows:
            writer.write(exact, signed)

    assert read_layout(tmp_path / "file.parquet") == (layout, 20_000)
    groups = list(read_signatures(tmp_path / "file.parquet"))
    assert len(groups) == 2  # bounded row groups
    assert np.concatenate([group.exact for group in groups]).tobytes() == b"".join(exact for exact, _ in rows)
    has_minhash = np.concatenate([group.has_minhash for group in groups])
    assert has_minhash.tolist() == [signed is not None for _, signed in rows]
    expected = np.stack([signed for _, signed in rows if signed is not None])
    assert np.array_equal(np.concatenate([group.minhash for group in groups]), expected)
    table = pq.read_table(tmp_path / "file.parquet")
    assert table.column("index").to_pylist() == list(range(20_000))
    assert str(table.schema.field("minhash").type) == "fixed_size_binary[48]"


@pytest.mark.parametrize("signed", [[], [None], [None, None]])
def test_signature_file_without_signatures_can_be_read(tmp_path: Path, signed: list[None]) -> None:
    with SignatureWriter(tmp_path / "file.parquet", MinHash()) as writer:
        for nothing in signed:
            writer.write(exact_hash(""), nothing)

    assert read_layout(tmp_path / "file.parquet") == (MinHash(), len(signed))
    groups = list(read_signatures(tmp_path / "file.parquet"))
    assert sum(len(group.exact) for group in groups) == len(signed)
    assert sum(len(group.minhash) for group in groups) == 0


def test_file_that_names_no_layout_is_refused(tmp_path: Path) -> None:
    with SignatureWriter(tmp_path / "good.parquet", MinHash()):
        pass
    table = pq.read_table(tmp_path / "good.parquet")
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "nameless.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")

    for name in ("nameless.parquet", "text.parquet"):
        with pytest.raises(CorruptFileError, match="layout"):
            read_layout(tmp_path / name)
