import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import storage.sources.readers.chunks
import storage.sources.readers.lines
import storage.sources.readers.plain_text
from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item
from storage.sources.readers.registry import reader_for

RECORDS: list[dict[str, Any]] = [
    {"text": "Кошка спит.\n", "meta": {"pile_set_name": "Tatar", "url": "x", "n": 1}},
    {"text": "", "meta": {"pile_set_name": "Tatar", "url": "y", "n": 2}},
    {
        "text": "emoji 🙂 and \u2028 a separator, \x00 a zero",
        "meta": {"pile_set_name": "Other", "url": "z", "n": 3},
    },
]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write(path: Path, data: bytes) -> Path:
    if path.name.endswith(".zst"):
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    elif path.name.endswith(".gz"):
        data = gzip.compress(data)
    path.write_bytes(data)
    return path


def read(path: Path, columns: Columns = Columns()) -> list[Item]:
    return list(reader_for(path.name).read(path, path.name, columns, lambda offset: True))


def measure(path: Path) -> int:
    return reader_for(path.name).measure(path, Columns())


def documents(path: Path) -> list[Document]:
    return [item for _, item in read(path) if isinstance(item, Document)]


def only_bad_line(path: Path) -> BadLine:
    [bad] = [item for _, item in read(path) if isinstance(item, BadLine)]
    return bad


def test_all_formats_give_the_same_documents(tmp_path: Path) -> None:
    found = {}
    for suffix in ("jsonl", "jsonl.zst", "jsonl.gz"):
        found[suffix] = documents(write(tmp_path / f"a.{suffix}", lines(RECORDS)))
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet", row_group_size=2)
    found["parquet"] = documents(tmp_path / "a.parquet")
    for suffix, result in found.items():
        assert [document.id for document in result] == [f"a.{suffix}:{line}" for line in (1, 2, 3)]
        assert [(document.text, document.subset, document.meta) for document in result] == [
            (record["text"], record["meta"]["pile_set_name"], {key: record["meta"][key] for key in ("url", "n")})
            for record in RECORDS
        ]
    for number, record in enumerate(RECORDS):
        path = write(tmp_path / f"{number}.txt", record["text"].encode())
        assert read(path, Columns(subset="mine")) == [(0, Document(f"{number}.txt:1", "mine", record["text"]))]


def test_offsets_are_those_of_the_uncompressed_lines(tmp_path: Path) -> None:
    data = lines(RECORDS)
    starts = [0, data.index(b"\n") + 1, data.index(b"\n", data.index(b"\n") + 1) + 1]
    for suffix in ("jsonl", "jsonl.zst", "jsonl.gz"):
        path = write(tmp_path / f"a.{suffix}", data)
        assert [offset for offset, _ in read(path)] == starts
        assert measure(path) == len(data)


def test_unwanted_offsets_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines(RECORDS))
    second = read(path)[1]
    assert list(reader_for(path.name).read(path, path.name, Columns(), lambda offset: offset == second[0])) == [
        second
    ]


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 50), st.booleans())
def test_lines_longer_and_shorter_than_chunks_arrive_whole(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chunk: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    records = [json.dumps({"text": "x" * length}) for length in lengths]
    path.write_text("\n".join(records) + ("\n" if ends else ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.sources.readers.chunks, "CHUNK_BYTES", chunk)
        found = documents(path)
    assert [(document.id, len(document.text)) for document in found] == [
        (f"a.jsonl:{number}", length) for number, length in enumerate(lengths, start=1)
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "not JSON: unexpected end of data"),
        (b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at position 13 of the line"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at position 10"),
        (b'{"text": NaN}', "field 'text' is a number instead of text"),
        (b'{"text": "a", "other": tru}', "not JSON"),
        (b'{"txt": "a"}', "field 'text' is missing instead of text"),
        (b'{"text": null}', "field 'text' is missing instead of text"),
        (b'{"text": ["a"]}', "field 'text' is list instead of text"),
        (b'["a"]', "not a JSON object but list"),
        (b'{"text": "a", "meta": {"pile_set_name": 7}}', "not a name of 1 to 200 characters"),
        (b'{"text": "a", "meta": {"pile_set_name": ""}}', "not a name of 1 to 200 characters"),
    ],
)
def test_bad_line_is_reported_with_its_position_and_the_rest_is_read(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    before = b'{"text": "one"}\n\n'
    path = write(tmp_path / "a.jsonl.zst", before + line + b"\r\n \n" + b'{"text": "two"}')
    assert [document.id for document in documents(path)] == ["a.jsonl.zst:1", "a.jsonl.zst:5"]
    bad = only_bad_line(path)
    assert (bad.file, bad.line, bad.offset) == ("a.jsonl.zst", 3, len(before))
    assert reason in bad.reason
    assert bad.excerpt.rstrip("\r") == line.decode("utf-8", "backslashreplace")


def test_bad_line_keeps_only_its_beginning(tmp_path: Path) -> None:
    bad = only_bad_line(write(tmp_path / "a.jsonl", b'{"text": "' + b"\xff" * 1000))
    assert bad.excerpt == '{"text": "' + r"\xff" * 190


def test_text_file_that_is_not_utf8_is_a_bad_line(tmp_path: Path) -> None:
    bad = only_bad_line(write(tmp_path / "a.txt", b"one\ntwo\nthree \xff four\n"))
    assert (bad.line, bad.offset) == (3, 8)
    assert bad.reason == "not UTF-8: byte 0xff at position 6 of the line"


@pytest.mark.parametrize("suffix", ["jsonl.zst", "jsonl.gz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "garbage behind"])
def test_damaged_file_is_refused_by_name(tmp_path: Path, suffix: str, damage: str) -> None:
    path = write(tmp_path / f"a.{suffix}", lines([{"text": str(number) * 50} for number in range(5000)]))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    path.write_bytes(
        {"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "garbage behind": data + b"garbage"}[damage]
    )
    for action in (lambda: read(path), lambda: measure(path)):
        with pytest.raises(InputError, match=f"{path} must be a complete"):
            action()


def test_concatenated_members_and_frames_are_all_read(tmp_path: Path) -> None:
    for suffix in ("jsonl.zst", "jsonl.gz"):
        path = write(tmp_path / f"a.{suffix}", lines(RECORDS[:1]))
        other = write(tmp_path / f"b.{suffix}", lines(RECORDS[1:]))
        path.write_bytes(path.read_bytes() + other.read_bytes())
        assert len(documents(path)) == 3


def test_line_beyond_the_limit_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.readers.lines, "MAX_LINE_BYTES", 10 << 20)
    monkeypatch.setattr(storage.sources.readers.plain_text, "MAX_TEXT_BYTES", 10 << 20)
    path = tmp_path / "bomb.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"text": "a"}\n' + bytes(64 << 20)))
    with pytest.raises(InputError, match=r"line 2 of .*bomb.jsonl.zst is longer"):
        read(path)
    text = write(tmp_path / "a.txt", b"x" * ((10 << 20) + 1))
    with pytest.raises(InputError, match="must have at most"):
        read(text)


def test_leipzig_sentences_are_one_document_each(tmp_path: Path) -> None:
    path = write(
        tmp_path / "tat-sentences.txt", "1\tБер.\n\n2\tИке\tөч.\r\nno number\n4\t\n".encode() + b"5\t\xff\n"
    )
    found = [item for _, item in read(path, Columns(subset="Tatar"))]
    assert found[:2] == [
        Document("tat-sentences.txt:1", "Tatar", "Бер."),
        Document("tat-sentences.txt:3", "Tatar", "Ике\tөч."),
    ]
    assert [(item.line, item.reason.partition(":")[0]) for item in found[2:] if isinstance(item, BadLine)] == [
        (4, "not a number, a tab and a sentence"),
        (5, "not a number, a tab and a sentence"),
        (6, "not UTF-8"),
    ]
    assert measure(path) == path.stat().st_size


def test_text_field_of_another_name_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"content": "a", "text": 1}\n')
    [(_, document)] = read(path, Columns(text=("content",)))
    assert document == Document("a.jsonl:1", "unlabelled", "a")


def test_parquet_with_subset_column_and_large_strings(tmp_path: Path) -> None:
    table = pa.table(
        {
            "other": pa.array([1, 2]),
            "pile_set_name": pa.array(["A", None]),
            "text": pa.array(["one", "two"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == [
        Document("a.parquet:1", "A", "one"),
        Document("a.parquet:2", "unlabelled", "two"),
    ]
    assert measure(tmp_path / "a.parquet") == 6


def test_parquet_rows_without_good_text_are_bad_lines(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfea")]
    )
    texts = pa.chunked_array([raw, pa.array([None, "end"], pa.string())])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    found = [item for _, item in read(tmp_path / "a.parquet")]
    assert [type(item) for item in found] == [BadLine, Document, BadLine, Document]
    assert "not UTF-8" in found[0].reason  # type: ignore[union-attr]
    assert "missing" in found[2].reason  # type: ignore[union-attr]
    assert found[2].line == 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"content": ["a"]}), "must have a text column 'text', found content; name the column"),
        (pa.table({"text": [1]}), "must hold text, found int64"),
    ],
)
def test_parquet_without_text_column_is_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        measure(tmp_path / "a.parquet")


def test_parquet_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 1000]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"{path} must be a complete parquet file"):
        read(path)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.jsonl", "jsonl"),
        ("a/b.jsonl.zst", "jsonl"),
        ("tat-sentences.txt", "leipzig"),
        ("sentences.txt", "plain-text"),
        ("a.jsonl.txt", "plain-text"),
        ("a.parquet", "parquet"),
    ],
)
def test_longest_suffix_names_the_reader(name: str, reader: str) -> None:
    assert reader_for(name).name == reader


@pytest.mark.parametrize("name", ["a.jso", "a.md", "jsonl", "a.parquet.zst", "a.rar"])
def test_name_of_no_known_format_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=rf"must end in \.jsonl, .*-sentences\.txt.*, found '{name}'"):
        reader_for(name)
