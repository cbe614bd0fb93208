"""Labels of the probe tokens in packed sequences."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from storage.errors import CorruptFileError, InputError
from storage.formats.packed import PackedFormat, PackedSequences, SequenceWriter
from storage.formats.parquet import METADATA_KEY
from storage.formats.probes import NO_LABEL, Probes
from storage.formats.tokens import TokenFormat

EOT = 0
SHA = "ab" * 32
NARROW, WIDE = TokenFormat(65536, EOT, SHA), TokenFormat(65537, EOT, SHA)
FORMATS = pytest.mark.parametrize("token_format", [NARROW, WIDE], ids=["uint16", "int32"])
HIGHEST = {65536: 65535, 65537: 65536}


TONE, FIELD = 1, 2
PROBED = PackedFormat(NARROW, 9, Probes(TONE, FIELD))
Row = tuple[list[NDArray[np.int64]], list[int]]


def probed_row(*documents: tuple[int, int, int]) -> Row:
    """Return a row of documents given as (tokens of text, label of tone, label of field)."""
    pieces = [np.array([*range(3, 3 + size), EOT, TONE, FIELD]) for size, _, _ in documents]
    return pieces, [label for _, *labels in documents for label in labels]


PROBED_ROWS = [
    probed_row((2, 5, 11), (1, NO_LABEL, 0)),
    probed_row((7, 1, NO_LABEL)),
    probed_row(),
    probed_row((0, 4, 3), (0, 2, 1), (1, 0, 0)),
    probed_row((1, NO_LABEL, NO_LABEL)),
]


def write_probed(path: Path, rows: Sequence[Row], row_group_sequences: int = 2) -> None:
    with SequenceWriter(path, PROBED, row_group_sequences) as writer:
        for pieces, labels in rows:
            writer.write(pieces or [np.array([5, 6, EOT])], labels)


def expected_labels(rows: Sequence[Row]) -> list[list[int]]:
    result = []
    for pieces, labels in rows:
        rest = iter(labels)
        places = [next(rest) if token in (TONE, FIELD) else NO_LABEL for piece in pieces for token in piece]
        result.append((places + [NO_LABEL] * 10)[:9])
    return result


def test_probe_labels_stand_at_their_tokens_in_any_order_of_files(tmp_path: Path) -> None:
    write_probed(tmp_path / "a", PROBED_ROWS[:3])
    write_probed(tmp_path / "empty", [])
    write_probed(tmp_path / "b", PROBED_ROWS[3:])
    sequences = PackedSequences([tmp_path / name for name in ("a", "empty", "b")])
    wanted = np.array([4, 0, 3, 3, 2, 1])
    tokens, mask = sequences.rows(wanted)
    assert sequences.format.probes == Probes(TONE, FIELD)
    assert sequences.probe_labels(wanted, tokens).tolist() == expected_labels([PROBED_ROWS[n] for n in wanted])
    assert sequences.probe_labels(np.array([], np.int64), tokens[:0]).shape == (0, 9)
    probes = (tokens == TONE) | (tokens == FIELD)
    assert not mask[probes[:, :-1] | probes[:, 1:]].any()
    assert sequences.count_labels(6, 12) == ((1, 1, 1, 0, 1, 1), (2, 1, 0, 1, *[0] * 7, 1))
    with pytest.raises(InputError, match="found label 11 and n_fields=11; set n_fields=12"):
        sequences.count_labels(6, 11)


def test_probe_labels_of_files_without_probes_are_none(tmp_path: Path) -> None:
    with SequenceWriter(tmp_path / "p", PackedFormat(NARROW, 4), 5) as writer:
        for _ in range(2):
            writer.write([np.array([5, 6, 7, 8, 9])])
    sequences = PackedSequences([tmp_path / "p"])
    tokens, _ = sequences.rows(np.arange(2))
    assert sequences.format.probes is None
    assert (sequences.probe_labels(np.arange(2), tokens) == NO_LABEL).all()
    assert sequences.count_labels(6, 12) == ((), ())
    assert pq.read_schema(tmp_path / "p").names == ["tokens", "doc_lens"]


def test_probe_labels_are_a_column_that_any_tool_reads(tmp_path: Path) -> None:
    write_probed(tmp_path / "p", PROBED_ROWS)
    table = pq.read_table(tmp_path / "p")
    assert table["labels"].to_pylist() == [labels for _, labels in PROBED_ROWS]
    assert table["doc_lens"].to_pylist()[0] == [5, 4]
    assert table.schema.field("labels").type == pa.list_(pa.field("element", pa.int8(), nullable=False))
    assert table.schema.metadata[METADATA_KEY] == (
        b'{"dtype":"uint16","eot_id":0,"field_id":2,"layout":"packed-sequences/1","sequence_length":9,'
        b'"tokenizer_sha256":"%s","tone_id":1,"vocab_size":65536}' % SHA.encode()
    )


@pytest.mark.parametrize("labels", [[], [1], [1, 2, 3]])
def test_sequence_writer_other_number_of_labels_than_of_probes_is_refused(
    tmp_path: Path, labels: list[int]
) -> None:
    with pytest.raises(AssertionError, match="2 probe tokens"):
        write_probed(tmp_path / "p", [(probed_row((2, 0, 0))[0], labels)])


def test_probe_labels_that_do_not_fit_the_tokens_are_refused(tmp_path: Path) -> None:
    write_probed(tmp_path / "good", PROBED_ROWS, row_group_sequences=5)
    table = pq.read_table(tmp_path / "good")
    labels = pa.array([[0, 0], *table["labels"].to_pylist()[1:]], table.schema.field("labels").type)
    pq.write_table(
        table.set_column(2, table.schema.field("labels"), labels),
        tmp_path / "bad",
        compression="none",
        use_dictionary=False,
    )
    sequences = PackedSequences([tmp_path / "bad"])
    tokens, _ = sequences.rows(np.array([0]))
    with pytest.raises(CorruptFileError, match="found 2 for 4 in sequence 0"):
        sequences.probe_labels(np.array([0]), tokens)
    pq.write_table(table.drop_columns("labels"), tmp_path / "none", compression="none", use_dictionary=False)
    with pytest.raises(CorruptFileError, match="must have a column of labels"):
        PackedSequences([tmp_path / "none"]).probe_labels(np.array([0]), tokens)


@pytest.mark.parametrize(
    "ids",
    [b'"tone_id":0,"field_id":2', b'"tone_id":1', b'"tone_id":1,"field_id":70000', b'"tone_id":"1","field_id":2'],
)
def test_packed_sequences_with_impossible_probes_are_refused(tmp_path: Path, ids: bytes) -> None:
    write_probed(tmp_path / "good", PROBED_ROWS)
    table = pq.read_table(tmp_path / "good")
    good = table.schema.metadata[METADATA_KEY]
    bad = good.replace(b'"field_id":2,', b"").replace(b'"tone_id":1', ids)
    for metadata, name in ((good, "same"), (bad, "bad")):
        changed = table.replace_schema_metadata({METADATA_KEY: metadata})
        pq.write_table(changed, tmp_path / name, compression="none", use_dictionary=False)
    assert len(PackedSequences([tmp_path / "same"])) == len(PROBED_ROWS)
    with pytest.raises(CorruptFileError, match="must name its probe tokens"):
        PackedSequences([tmp_path / "bad"])
