from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import CorruptFileError, InputError
from storage.formats.packed import PackedFormat, PackedSequences, SequenceWriter
from storage.formats.parquet import METADATA_KEY
from storage.formats.tokens import TokenFormat

EOT = 0
SHA = "ab" * 32
NARROW, WIDE = TokenFormat(65536, EOT, SHA), TokenFormat(65537, EOT, SHA)
FORMATS = pytest.mark.parametrize("token_format", [NARROW, WIDE], ids=["uint16", "int32"])
HIGHEST = {65536: 65535, 65537: 65536}


def document(*ids: int) -> NDArray[np.int64]:
    return np.array([*ids, EOT], np.int64)


def write_sequences(
    path: Path,
    rows: Sequence[Sequence[NDArray[Any]]],
    sequence_length: int = 4,
    token_format: TokenFormat = NARROW,
    row_group_sequences: int = 3,
) -> SequenceWriter:
    packed_format = PackedFormat(token_format, sequence_length)
    with SequenceWriter(path, packed_format, row_group_sequences) as writer:
        for row in rows:
            writer.write(row)
    return writer


def random_rows(count: int, row_tokens: int, highest: int) -> list[list[NDArray[np.int64]]]:
    random = np.random.default_rng(0)
    return [[random.integers(1, highest + 1, row_tokens)] for _ in range(count)]


# ---- token format ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(2, "uint16"), (65535, "uint16"), (65536, "uint16"), (65537, "int32"), (2**31, "int32")],
)
def test_token_format_has_the_narrowest_type_for_every_id(vocab_size: int, dtype: str) -> None:
    token_format = TokenFormat(vocab_size, EOT, SHA)
    assert token_format.dtype.name == dtype
    assert int(np.iinfo(token_format.dtype).max) >= vocab_size - 1


@pytest.mark.parametrize(("vocab_size", "eot_id"), [(10, 10), (10, -1), (2**31 + 1, 0)])
def test_token_format_impossible_is_refused(vocab_size: int, eot_id: int) -> None:
    with pytest.raises(InputError, match="vocab_size"):
        TokenFormat(vocab_size, eot_id, SHA)


# ---- archive ---------------------------------------------------------------------------------------


@FORMATS
def test_packed_sequences_equal_pyarrows_own_reading(tmp_path: Path, token_format: TokenFormat) -> None:
    rows = random_rows(11, 9, HIGHEST[token_format.vocab_size])
    write_sequences(tmp_path / "p.parquet", rows, 8, token_format, row_group_sequences=4)
    sequences = PackedSequences([tmp_path / "p.parquet"])
    tokens, mask = sequences.rows(np.arange(11))
    column = pq.read_table(tmp_path / "p.parquet").column("tokens")
    expected = np.frombuffer(b"".join(column.to_pylist()), token_format.dtype).reshape(11, 9)
    assert np.array_equal(tokens, expected)
    assert np.array_equal(tokens, np.array([row[0] for row in rows]))
    assert (len(sequences), sequences.sequence_length, sequences.dtype) == (11, 8, token_format.dtype)
    assert tokens.flags.aligned
    assert tokens.flags.owndata
    assert mask.all()


def test_packed_sequences_of_several_files_are_numbered_through(tmp_path: Path) -> None:
    rows = random_rows(10, 5, 1000)
    paths = [tmp_path / name for name in ("a", "empty", "b", "c")]
    for path, part in zip(paths, (rows[:4], [], rows[4:5], rows[5:]), strict=True):
        write_sequences(path, part)
    sequences = PackedSequences(paths)
    wanted = np.array([9, 0, 4, 3, 5, 4, 8])
    assert len(sequences) == 10
    assert np.array_equal(sequences.rows(wanted)[0], np.array([rows[index][0] for index in wanted]))
    assert sequences.rows(np.array([], np.int64))[0].shape == (0, 5)


def test_packed_sequences_mask_leaves_out_borders_and_padding(tmp_path: Path) -> None:
    rows = [
        [document(5, 6), document(7)],  # 5 6 E 7 E: full, the first E also leads 7
        [document(5), document()],  # 5 E E . .: a document without text, two tokens of padding
        [np.array([5, 6, 7, 8, 9])],  # inside a long document
        [document(5, 6, 7, 8)],  # its end is the row's
        [document()],
    ]
    write_sequences(tmp_path / "p", rows)
    tokens, mask = PackedSequences([tmp_path / "p"]).rows(np.arange(5))
    assert tokens.tolist() == [[5, 6, 0, 7, 0], [5, 0, 0, 0, 0], [5, 6, 7, 8, 9], [5, 6, 7, 8, 0], [0] * 5]
    assert mask.tolist() == [
        [True, True, True, True],
        [True, False, False, False],
        [True, True, True, True],
        [True, True, True, True],
        [False, False, False, False],
    ]


@given(lengths=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=12))
@settings(deadline=None, max_examples=30)
def test_packed_sequences_mask_follows_from_the_lengths_of_the_documents(
    lengths: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("packed") / "p"
    rows = [[document(*range(1, size)) for size in row] for row in lengths]
    padding = [20 - sum(row) for row in lengths]
    writer = SequenceWriter(path, PackedFormat(NARROW, 19), 5)
    with writer:
        assert [writer.write(row) for row in rows] == padding
    _, mask = PackedSequences([path]).rows(np.arange(len(rows)))
    stored = pq.read_table(path).column("doc_lens").to_pylist()
    assert stored == lengths
    for row, sizes in zip(mask, stored, strict=True):
        ids = [token for size in sizes for token in [*range(1, size), 0]]
        expected = [pair != (0, 0) for pair in pairwise(ids + [0] * (20 - len(ids)))]
        assert row.tolist() == expected


def test_packed_sequences_info_says_where_the_tokens_lie(tmp_path: Path) -> None:
    path = tmp_path / "p"
    rows = random_rows(8, 5, 1000)
    info = write_sequences(path, rows).info()
    data = path.read_bytes()
    payload = b"".join(data[offset : offset + size] for offset, size in info.pop("row_groups"))
    assert np.frombuffer(payload, np.uint16).tolist() == np.concatenate([row[0] for row in rows]).tolist()
    assert info == {
        "layout": "packed-sequences/1",
        "dtype": "uint16",
        "sequence_length": 4,
        "vocab_size": 65536,
        "eot_id": 0,
        "tokenizer_sha256": SHA,
    }


def test_packed_sequences_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sequences(tmp_path / name, random_rows(50, 5, 1000))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_packed_sequences_large_row_group_is_still_one_page(tmp_path: Path) -> None:
    rows = random_rows(5000, 513, 65535)  # 5 MB: several times pyarrow's default page and batch
    write_sequences(tmp_path / "p", rows, 512, row_group_sequences=5000)
    wanted = np.array([0, 1023, 1024, 4999])
    tokens, _ = PackedSequences([tmp_path / "p"]).rows(wanted)
    assert np.array_equal(tokens, np.array([rows[index][0] for index in wanted]))


@pytest.mark.parametrize("pieces", [[document(1, 2), document(1, 2)], [document(1, 2, 3, 4), document()]])
def test_packed_sequences_pieces_that_do_not_fit_are_refused(tmp_path: Path, pieces: list[NDArray[Any]]) -> None:
    with pytest.raises((ValueError, AssertionError)):
        write_sequences(tmp_path / "p", [pieces])


def test_packed_sequences_padding_inside_a_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="padding"):
        write_sequences(tmp_path / "p", [[np.array([1, 2])]])


@pytest.mark.parametrize("index", [-1, 3])
def test_packed_sequences_index_outside_is_refused(tmp_path: Path, index: int) -> None:
    write_sequences(tmp_path / "p", random_rows(3, 5, 9))
    with pytest.raises(IndexError, match="from 0 to 2"):
        PackedSequences([tmp_path / "p"]).rows(np.array([0, index]))


def test_packed_sequences_no_files_are_refused() -> None:
    with pytest.raises(InputError, match="at least one file"):
        PackedSequences([])


@pytest.mark.parametrize(
    "other", [PackedFormat(NARROW, 5), PackedFormat(WIDE, 4), PackedFormat(TokenFormat(65536, EOT, "cd" * 32), 4)]
)
def test_packed_sequences_files_of_different_formats_are_refused(tmp_path: Path, other: PackedFormat) -> None:
    write_sequences(tmp_path / "a", random_rows(3, 5, 9))
    write_sequences(tmp_path / "b", random_rows(3, other.row_tokens, 9), other.sequence_length, other.tokens)
    with pytest.raises(CorruptFileError, match="must have the format of"):
        PackedSequences([tmp_path / "a", tmp_path / "b"])


OTHER_LAYOUTS = {
    "compressed": {"compression": "zstd"},
    "several pages": {"data_page_size": 64, "write_batch_size": 4},
    "page version 2": {"data_page_version": "2.0"},
    "dictionary": {"use_dictionary": True},
    "split streams": {"column_encoding": {"tokens": "BYTE_STREAM_SPLIT"}},
}


@pytest.mark.parametrize("options", OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
def test_packed_sequences_same_table_in_another_layout_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    write_sequences(tmp_path / "good", random_rows(40, 5, 999), row_group_sequences=40)
    table = pq.read_table(tmp_path / "good")
    defaults = {"compression": "none", "use_dictionary": False}
    pq.write_table(table, tmp_path / "same", **defaults)
    assert len(PackedSequences([tmp_path / "same"])) == 40  # nothing but the option makes the difference
    pq.write_table(table, tmp_path / "bad", **{**defaults, **options})
    with pytest.raises(CorruptFileError, match="one plain page"):
        PackedSequences([tmp_path / "bad"])


def test_packed_sequences_nullable_tokens_are_refused(tmp_path: Path) -> None:
    write_sequences(tmp_path / "good", random_rows(4, 5, 999))
    table = pq.read_table(tmp_path / "good")
    schema = table.schema.set(0, pa.field("tokens", pa.binary(10), nullable=True))
    pq.write_table(table.cast(schema), tmp_path / "bad", compression="none", use_dictionary=False)
    with pytest.raises(CorruptFileError, match="one plain page"):
        PackedSequences([tmp_path / "bad"])


DESCRIPTIONS = {
    "none": None,
    "another row length": b'{"dtype":"uint16","eot_id":0,"layout":"packed-sequences/1","sequence_length":5,'
    b'"tokenizer_sha256":"","vocab_size":9}',
    "a later version": b'{"dtype":"uint16","eot_id":0,"layout":"packed-sequences/2","sequence_length":4,'
    b'"tokenizer_sha256":"","vocab_size":9}',
    "text for a number": b'{"dtype":"uint16","eot_id":0,"layout":"packed-sequences/1","sequence_length":"4",'
    b'"tokenizer_sha256":"","vocab_size":9}',
    "not JSON": b"{",
}


@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_packed_sequences_with_another_description_are_refused(tmp_path: Path, description: bytes | None) -> None:
    write_sequences(tmp_path / "good", random_rows(4, 5, 8))
    table = pq.read_table(tmp_path / "good")
    metadata = {METADATA_KEY: description} if description else None
    pq.write_table(
        table.replace_schema_metadata(metadata), tmp_path / "bad", compression="none", use_dictionary=False
    )
    with pytest.raises(CorruptFileError):
        PackedSequences([tmp_path / "bad"])


def test_packed_sequences_cut_or_foreign_file_is_refused(tmp_path: Path) -> None:
    write_sequences(tmp_path / "good", random_rows(4, 5, 8))
    data = (tmp_path / "good").read_bytes()
    for damaged in (data[:-3], b"", b"PAR1", b"text" * 100):
        (tmp_path / "bad").write_bytes(damaged)
        with pytest.raises(CorruptFileError, match="must be a Parquet file"):
            PackedSequences([tmp_path / "bad"])


def test_sequence_writer_row_group_larger_than_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row_group_sequences"):
        SequenceWriter(tmp_path / "p", PackedFormat(NARROW, 2**20), 1024)


# ---- packed sequences with probe tokens ------------------------------------------------------------
