"""Files as other people's tools write them, which comparable readers lose or misread."""

import bz2
import gzip
import json
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import storage.sources.readers.archive.reader
import storage.sources.readers.chunks
from storage.errors import InputError
from storage.formats.documents import Document
from storage.sources.readers.base import BadLine, Columns, Item
from storage.sources.readers.registry import reader_for

GOOD = b'{"text": "one"}\n{"text": "two"}\n'
ZERO_SKIPPED = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
"""A frame of zstd that holds nothing to unpack."""


def read(path: Path, **columns: Any) -> list[Item]:
    return list(reader_for(path.name).read(path, path.name, Columns(**columns), lambda offset: True))


def texts(path: Path, **columns: Any) -> list[str]:
    items = [item for _, item in read(path, **columns)]
    assert not [item for item in items if isinstance(item, BadLine)]
    return [item.text for item in items if isinstance(item, Document)]


def one(path: Path, line: bytes, **columns: Any) -> Document:
    path.write_bytes(line + b"\n")
    [(_, found)] = read(path, **columns)
    assert isinstance(found, Document), found
    orjson.loads(orjson.dumps(found.meta))
    return found


def long_frame(data: bytes, window_log: int) -> bytes:
    settings = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return packer.compress(data) + packer.flush()


# ---- compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize("window_log", [27, 28, 31])
def test_zstd_long_is_read_and_a_lower_limit_says_what_it_needs(tmp_path: Path, window_log: int) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(b'{"text": "zero"}\n') + long_frame(GOOD, window_log))
    assert texts(path) == ["zero", "one", "two"]
    needed = 2**window_log >> 20
    with pytest.raises(
        InputError, match=f"{path} needs a window of {needed} MiB .* limit is 64 MiB: raise .*max_window_mb"
    ):
        texts(path, max_window=64 << 20)


def test_streams_in_a_row_with_what_may_stand_between_them(tmp_path: Path) -> None:
    first, second = GOOD[:16], GOOD[16:]
    for name, data in {
        "a.jsonl.gz": gzip.compress(first) + gzip.compress(b"") + gzip.compress(second) + bytes(512),
        "a.jsonl.bz2": bz2.compress(first) + bz2.compress(b"") + bz2.compress(second),
        "a.jsonl.xz": lzma.compress(first) + bytes(8) + lzma.compress(b"") + lzma.compress(second) + bytes(4),
        "a.jsonl.zst": ZERO_SKIPPED
        + zstandard.compress(first)
        + zstandard.compress(b"")
        + zstandard.compress(second),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert texts(tmp_path / name) == ["one", "two"], name
        assert reader_for(name).measure(tmp_path / name, Columns()) == len(GOOD)
        (tmp_path / name).write_bytes(data + b"garbage")
        with pytest.raises(InputError, match=rf"{name} must be a complete .*begins at byte \d+"):
            texts(tmp_path / name)


# ---- encodings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("suffix", "data", "expected"),
    [
        (".jsonl", GOOD, ["one", "two"]),
        (".json", b'[{"text": "one"}]', ["one"]),
        (".csv", b"text,n\none,1\n", ["one"]),
        (".txt", b"one", ["one"]),
    ],
)
def test_byte_order_mark_is_no_text_and_other_encodings_are_named(
    tmp_path: Path, suffix: str, data: bytes, expected: list[str], ending: str
) -> None:
    path = tmp_path / f"a{suffix}{ending}"
    pack = gzip.compress if ending else bytes
    path.write_bytes(pack(b"\xef\xbb\xbf" + data))
    assert texts(path) == expected
    if suffix == ".jsonl":
        path.write_bytes(pack((b"\xef\xbb\xbf" + data) * 2))
        assert texts(path) == expected * 2
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        path.write_bytes(pack((data * 3).decode().encode(encoding)))
        if suffix == ".txt" or len(data) > 8:
            with pytest.raises(InputError, match=rf"{path} must be UTF-8, found UTF-.*iconv -f UTF-"):
                texts(path)


# ---- fields that are not taken, or hold what JSON does not ---------------------------------------


DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000, b'"\\ud800"', DEEP])
def test_field_that_is_not_taken_harms_no_document(tmp_path: Path, value: bytes) -> None:
    found = one(tmp_path / "a.jsonl", b'{"text": "a", "other": ' + value + b"}")
    assert (found.text, found.meta, found.notes) == ("a", {}, ())


@pytest.mark.parametrize(
    ("meta", "kept", "notes"),
    [
        (b'"{\\"a\\": 1, \\"pile_set_name\\": \\"B\\"}"', {"a": 1}, ()),
        (b'"words"', {"meta": "words"}, ("meta_not_object",)),
        (b"[1]", {"meta": [1]}, ("meta_not_object",)),
        (b'""', {}, ()),
        (
            b'{"n": NaN, "m": 18446744073709551616}',
            {"n": "NaN", "m": "18446744073709551616"},
            ("numbers_as_text",) * 2,
        ),
        (b'{"m": 18446744073709551616}', {"m": "18446744073709551616"}, ("numbers_as_text",)),
        (b'{"x": 1e300, "n": 5}', {"x": 1e300, "n": 5}, ()),
        (b'{"s": "\\udc00"}', {"s": "\ufffd"}, ("replaced_surrogates",)),
    ],
)
def test_meta_is_kept_and_what_was_done_to_it_is_noted(
    tmp_path: Path, meta: bytes, kept: dict[str, Any], notes: tuple[str, ...]
) -> None:
    found = one(tmp_path / "a.jsonl", b'{"text": "a", "meta": ' + meta + b"}")
    assert (found.meta, found.notes) == (kept, notes)
    assert found.subset == ("B" if b"pile_set_name" in meta else "unlabelled")


@pytest.mark.parametrize("depth", [150, 300, 2000, 50_000])
def test_nested_metadata_can_be_stored_at_any_depth(tmp_path: Path, depth: int) -> None:
    found = one(tmp_path / "a.jsonl", b'{"text": "a", "meta": {"d": ' + b"[" * depth + b"]" * depth + b"}}")
    assert found.notes == (("deep_values_left_out",) if depth > 200 else ())


def test_lone_surrogates_are_replaced_and_counted_and_pairs_are_not(tmp_path: Path) -> None:
    found = one(tmp_path / "a.jsonl", rb'{"text": "\ud800 \ud83d\ude00 \udfff"}')
    assert (found.text, found.notes) == ("\ufffd 😀 \ufffd", ("replaced_surrogates",) * 2)


def test_fields_by_several_names_with_dots_and_who_documents_are(tmp_path: Path) -> None:
    line = b'{"id": 7, "url": "u", "source": "s", "a.b": "literal", "a": {"b": "inner", "set": "S"}, "x": 1}'
    found = one(tmp_path / "a.jsonl", line, text=("no", "a.b"), subset_fields=("a.set",))
    assert (found.id, found.text, found.subset) == ("a.jsonl:1", "literal", "S")
    assert found.meta == {"id": 7, "url": "u", "source": "s"}
    assert one(tmp_path / "a.jsonl", line.replace(b"a.b", b"ab"), text=("no", "a.b")).text == "inner"
    (tmp_path / "a.jsonl").write_bytes(line)
    [(_, bad)] = read(tmp_path / "a.jsonl", text=("x", "no"))
    assert isinstance(bad, BadLine)
    assert "none of the fields 'x', 'no' holds text" in bad.reason


# ---- JSON ----------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.fixed_dictionaries({"text": st.text(max_size=30), "x": VALUES}), max_size=6),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from(["array", "row", "lines"]),
)
def test_json_is_split_like_the_json_module_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
    form: str,
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    if form == "array":
        data = json.dumps(records, indent=indent, ensure_ascii=ascii_only)
    else:
        indent = None if form == "lines" else 1
        data = "\n".join(json.dumps(record, indent=indent, ensure_ascii=ascii_only) for record in records)
    path.write_bytes(data.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.sources.readers.chunks, "CHUNK_BYTES", chunk)
        assert texts(path) == [record["text"] for record in records]
        assert reader_for(path.name).measure(path, Columns()) == len(data.encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"text": "a"}', "ends after 14 bytes"),
        (b'[{"text": "a"}] x', "found b'x' at byte 16"),
        (b'{"text": "a"\n', "ends after"),
        (b"<html>", "must begin with"),
    ],
)
def test_json_that_is_not_whole_is_refused_with_its_position(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    for action in (lambda: texts(path), lambda: reader_for(path.name).measure(path, Columns())):
        with pytest.raises(InputError, match=message):
            action()


# ---- CSV -----------------------------------------------------------------------------------------


def test_csv_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    big = "x" * 300_000
    data = b'id;text\r\n1;"a ""b"",\r\nc; d"\r\n\r\n2;\xff\r\n3;' + big.encode() + b"\r\n4\r\n5;\xe2\x80\xa8end"
    path.write_bytes(data)
    found = [item for _, item in read(path)]
    good = {item.meta["id"]: item.text for item in found if isinstance(item, Document)}
    assert good == {"1": 'a "b",\r\nc; d', "3": big, "5": "\u2028end"}
    assert [(bad.line, bad.offset) for bad in found if isinstance(bad, BadLine)] == [
        (3, data.index(b"2;")),
        (5, data.index(b"4\r")),
    ]


def test_csv_quote_that_never_closes_hides_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,n\nok,1\n"open,2\n' + b"row,3\n" * 50)
    with pytest.raises(InputError, match=r"the row that begins in line 3 \(byte 12\) never ends"):
        read(path)


# ---- archives ------------------------------------------------------------------------------------


def tar(path: Path, *files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    import io

    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("../a.jsonl", GOOD)], "below its own folder"),
        ([("/etc/a.jsonl", GOOD)], "below its own folder"),
        ([("a.zip", b"x")], "must hold no archives, found 'a.zip'"),
        ([("a.jsonl", GOOD), ("a.jsonl", GOOD)], "two named 'a.jsonl'"),
        ([("a.png", b"x"), ("._a.jsonl", b"\0")], "must hold a file that can be read"),
        ([("in/a.json", b"[{")], r"a.tar/in/a.json must be complete JSON"),
    ],
)
def test_archive_that_cannot_be_read_names_its_member(
    tmp_path: Path, files: list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(tar(tmp_path / "a.tar", *files))


def test_links_in_an_archive_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        (tmp_path / "a.jsonl").write_bytes(GOOD)
        archive.add(tmp_path / "a.jsonl", "a.jsonl")
        for kind, name in (
            (tarfile.SYMTYPE, "link.txt"),
            (tarfile.LNKTYPE, "hard.txt"),
            (tarfile.CHRTYPE, "dev.txt"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [item.id for _, item in read(path) if isinstance(item, Document)] == [
        "a.tar/a.jsonl:1",
        "a.tar/a.jsonl:2",
    ]
    reader_for(path.name).measure(path, Columns())
    assert "link.txt (link), hard.txt (link), dev.txt (device)" in caplog.text


def test_size_of_what_an_archive_holds_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.sources.readers.archive.reader, "MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(50 << 20))
    with pytest.raises(InputError, match=r"must have at most 1048576 bytes.*found more in 'bomb.txt'"):
        read(path)


def test_encrypted_and_damaged_files_of_a_zip_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", GOOD)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"one", b"two", 1))
    with pytest.raises(InputError, match=r"a.zip must be a complete zip file, but its file 'a.jsonl' .*CRC"):
        read(path)
    at = data.index(b"PK\x01\x02") + 8
    path.write_bytes(data[:at] + b"\1" + data[at + 1 :])
    with pytest.raises(InputError, match=r"must not be encrypted, but its file 'a.jsonl' is"):
        read(path)


def test_tar_cut_at_the_border_of_a_file_is_cut_short(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("a.jsonl", GOOD), ("b.jsonl", GOOD))
    data = path.read_bytes()
    for damaged in (data[:1024], data + data, data[:1024] + b"\xff" * 512 + data[1536:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a.tar must be a complete tar file"):
            read(path)
