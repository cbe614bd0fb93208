"""A folder with a file of every kind that can be read, and a broken twin of each."""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.tokens import EOT, TOKENIZER, TOKENS
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.tokenize.config import TokenizeConfig
from tasks.tokenize.stage import STAGE as TOKENIZE
from tests.unit.tasks.downloads import documents, download

N = 20
Rows = list[dict[str, Any]]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def rows(kind: str) -> Rows:
    return [
        {
            "id": f"{kind}-{n}",
            "url": f"https://example.org/{kind}/{n}",
            "set": f"set-{n % 2}",
            "text": f'{kind}: document "{n}", its first line\nand its second, дүрт 🙂',
        }
        for n in range(N)
    ]


def json_lines(found: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in found).encode()


def json_array(found: Rows) -> bytes:
    return json.dumps(found, indent=1).encode("utf-8-sig")


def table_of_text(found: Rows, delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue().encode("utf-8-sig")


def parquet(found: Rows, kind: pa.DataType | str) -> bytes:
    texts = [row["text"] for row in found]
    others = {name: [row[name] for row in found] for name in ("id", "url", "set")}
    if kind == "nested":
        column: Any = pa.array([{"text": text} for text in texts])
        table = pa.table({**others, "doc": column})
    else:
        column = pa.array(texts)
        if isinstance(kind, pa.DictionaryType):
            column = column.dictionary_encode()
        elif kind == pa.string_view():
            column = pa.array(texts, kind)
        else:
            column = column.cast(kind)
        table = pa.table({**others, "content": column})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def arrow(found: Rows, *, stream: bool) -> bytes:
    table, out = pa.Table.from_pylist(found), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(f"./inner/{name}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("inner/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"inner/{name}", data)
    return out.getvalue()


TABLES: dict[str, Callable[[Rows], bytes]] = {
    **{
        f"jsonl{end}.jsonl{end}": lambda found, pack=pack: pack(json_lines(found))
        for end, pack in COMPRESS.items()
    },  # type: ignore[misc]
    **{f"json{end}.json{end}": lambda found, pack=pack: pack(json_array(found)) for end, pack in COMPRESS.items()},  # type: ignore[misc]
    **{
        f"csv{end}.csv{end}": lambda found, pack=pack: pack(table_of_text(found, ","))  # type: ignore[misc]
        for end, pack in COMPRESS.items()
    },
    "nd.NDJSON": json_lines,
    "by-lines.json": json_lines,
    "semicolons.csv": lambda found: table_of_text(found, ";"),
    "tabs.tsv": lambda found: table_of_text(found, "\t"),
    "string.parquet": lambda found: parquet(found, pa.string()),
    "large.parquet": lambda found: parquet(found, pa.large_string()),
    "view.parquet": lambda found: parquet(found, pa.string_view()),
    "binary.parquet": lambda found: parquet(found, pa.binary()),
    "dictionary.parquet": lambda found: parquet(found, pa.dictionary(pa.int32(), pa.string())),
    "nested.parquet": lambda found: parquet(found, "nested"),
    "file.arrow": lambda found: arrow(found, stream=False),
    "stream.arrow": lambda found: arrow(found, stream=True),
    "two.feather": lambda found: arrow(found, stream=False),
    "plain.tar": lambda found: tar("a.jsonl", json_lines(found)),
    **{
        f"t{end}.tar{end}": lambda found, pack=pack: pack(tar("a.csv", table_of_text(found, ",")))  # type: ignore[misc]
        for end, pack in COMPRESS.items()
        if end
    },
    "short.tgz": lambda found: gzip.compress(tar("a.json", json_array(found))),
    "parquet.zip": lambda found: zipped("a.parquet", parquet(found, pa.string())),
    "lines.zip": lambda found: zipped("a.jsonl.gz", gzip.compress(json_lines(found))),
}
"""A file of every kind whose records have fields."""

TEXTS = {f"t{end}.txt{end}": pack for end, pack in COMPRESS.items()}
"""A file of every kind of plain text, compressed so."""

CONFIG: dict[str, Any] = {
    "text_field": ("text", "content", "doc.text"),
    "subset_field": "set",
    "val_fraction": 0.0,
    "test_fraction": 0.0,
    "shard_bytes": 20_000,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    for name, make in TABLES.items():
        (made / name).write_bytes(make(rows(name)))
    return made


def test_every_kind_gives_its_documents_with_who_they_are(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    artifact = download(tmp_path / "store", patterns=(f"{folder}/*",), workers=2, **CONFIG)
    found = documents(artifact)
    assert artifact.counts["documents"] == len(found) == N * len(TABLES)
    assert len({document.id for document in found}) == len(found)
    assert sorted((d.meta["id"], d.meta["url"], d.subset, d.text) for d in found) == sorted(
        (row["id"], row["url"], row["set"], row["text"]) for name in TABLES for row in rows(name)
    )
    assert all(document.id.startswith(document.meta["id"].rpartition("-")[0]) for document in found)
    assert "the text is the field 'content' in " in caplog.text
    assert "inner/link.txt (link)" in caplog.text


@pytest.mark.parametrize(("mode", "expected"), [("document", 1), ("line", 2 * N), ("paragraph", N)])
def test_plain_text_gives_documents_lines_or_paragraphs(tmp_path: Path, mode: str, expected: int) -> None:
    text = "\ufeff" + "\r\n\r\n".join(f"paragraph {n},\r\nits end" for n in range(N))
    for name, pack in TEXTS.items():
        (tmp_path / name).write_bytes(pack(text.encode()))
    source = {"val_fraction": 0.0, "test_fraction": 0.0, "text_files": mode}
    artifact = download(tmp_path / "store", patterns=(f"{tmp_path}/t*.*",), **source)
    found = documents(artifact)
    assert len(found) == expected * len(TEXTS)
    assert not any("\ufeff" in document.text for document in found)


@pytest.mark.parametrize("name", TABLES)
def test_broken_twin_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    made = rows(name)
    data = TABLES[name](made)
    path.write_bytes(data[: len(data) * 2 // 3] + (b"" if name.endswith("zip") else b"\xff\xfe\x00"))
    with pytest.raises(InputError, match=name) as caught:
        download(tmp_path / "store", patterns=(str(path),), max_bad_lines=0, **CONFIG)
    message = str(caught.value)
    knows_position = not name.endswith((".zip", ".parquet", ".arrow", ".feather", ".tar"))
    assert not knows_position or any(word in message for word in ("line ", "byte", "bytes")), message


@pytest.mark.parametrize("name", TEXTS)
def test_broken_text_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name](b"first\nsecond \xff\n"))
    with pytest.raises(InputError, match=rf"{name} must hold a document in line 2 \(byte 6\), found not UTF-8"):
        download(tmp_path / "store", patterns=(str(path),), max_bad_lines=0, **CONFIG)


def test_id_url_and_subset_reach_the_token_archive(folder: Path, tmp_path: Path) -> None:
    artifact = download(tmp_path / "store", patterns=(f"{folder}/*",), **CONFIG)
    context = RunContext(Store(str(tmp_path / "store")), run_id="run-2", recipe={}, execution=Execution(workers=1))
    inputs = {"corpus": artifact, "tokenizer": _tokenizer(Store(str(tmp_path / "store")))}
    tokens = run_stage(TOKENIZE, TokenizeConfig(), inputs, context).artifact
    table = pa.concat_tables([pq.read_table(tokens.open(file)) for file in tokens.files(TOKENS)]).to_pylist()
    assert sorted(
        (json.loads(row["meta"])["id"], json.loads(row["meta"])["url"], row["subset"]) for row in table
    ) == (sorted((row["id"], row["url"], row["set"]) for name in TABLES for row in rows(name)))


def _tokenizer(store: Store) -> Artifact:
    """Publish a tokenizer of single bytes."""
    alphabet = {EOT: 0, **{char: n for n, char in enumerate(sorted(ByteLevel.alphabet()), start=1)}}
    encoder = Tokenizer(BPE(alphabet, []))
    encoder.pre_tokenizer = ByteLevel(add_prefix_space=False)
    writer = ArtifactWriter(store, "train-tokenizer", "0" * 16)
    path = writer.scratch() / "tokenizer.json"
    encoder.save(str(path))
    return writer.publish(
        [writer.commit("tokenizer", {TOKENIZER: path})],
        version=1,
        config={},
        inputs={},
        sources={},
        recipe={},
        run_id="test",
        code_commit="",
        libraries={},
        started="",
        seconds=0.0,
    )
