from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import CorruptFileError
from storage.formats.documents import Document, DocumentWriter, read_documents, read_zstd_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
META = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT | st.lists(TEXT), max_size=3
)
DOCUMENTS = st.lists(st.builds(Document, id=TEXT, subset=TEXT, text=TEXT, meta=META), max_size=5)
SOME = [
    Document(f"file:{number}", "Wikipedia", "текст 🦙 \u2028\r\n\x00" * number, {"n": number})
    for number in range(5)
]


def write(path: Path, documents: list[Document]) -> DocumentWriter:
    with DocumentWriter(path) as writer:
        for document in documents:
            writer.write(document)
    return writer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(documents=DOCUMENTS)
def test_documents_are_read_back_as_they_were_written(tmp_path: Path, documents: list[Document]) -> None:
    path = tmp_path / "shard.jsonl.zst"
    writer = write(path, documents)
    assert list(read_documents(path)) == documents
    size = sum(len(document.text.encode()) for document in documents)
    assert writer.counts() == {"documents": len(documents), "text_bytes": size}
    first = path.read_bytes()
    write(path, documents)
    assert path.read_bytes() == first


def test_documents_of_a_shard_that_is_cut_short_are_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "shard.jsonl.zst"
    write(path, SOME)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptFileError, match=r"shard\.jsonl\.zst"):
            list(read_documents(path))


def test_documents_of_a_shard_with_a_flipped_bit_are_refused_or_the_same(tmp_path: Path) -> None:
    # A bit of the frame's header may say how much memory to reserve: then nothing changes.
    path = tmp_path / "shard.jsonl.zst"
    write(path, SOME)
    data = path.read_bytes()
    refused = 0
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        try:
            assert list(read_documents(path)) == SOME
        except CorruptFileError:
            refused += 1
    assert refused >= len(data) - 2


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"id": "a"}', b"null", b'{"id": "\xff"}', b""], ids=repr)
def test_line_that_is_no_document_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "shard.jsonl.zst"
    write(path, SOME)
    good = b"\n".join(read_zstd_lines(path))
    path.write_bytes(zstandard.compress(good + b"\n" + line + b"\n"))
    with pytest.raises(CorruptFileError, match=f"line {len(SOME) + 1} "):
        list(read_documents(path))


def test_lines_of_all_frames_are_read_and_what_is_behind_them_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.zst"
    frames = [zstandard.compress(piece) for piece in (b"a\nb", b"c\n", b"", b"\nlast")]
    path.write_bytes(b"".join(frames))
    assert list(read_zstd_lines(path)) == [b"a", b"bc", b"", b"last"]
    path.write_bytes(b"".join(frames) + b"not a frame")
    with pytest.raises(ValueError, match="begins at byte 46"):
        list(read_zstd_lines(path))


def test_document_that_is_not_unicode_is_not_written(tmp_path: Path) -> None:
    def write_it(**fields: Any) -> None:
        write(tmp_path / "shard.jsonl.zst", [Document(**{"id": "a", "subset": "b", "text": "c", **fields})])

    for fields in ({"text": "\ud800"}, {"meta": {"path": Path("a")}}):
        with pytest.raises(TypeError):
            write_it(**fields)
