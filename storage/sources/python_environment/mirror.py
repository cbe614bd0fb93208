"""Lay out the text of this Python installation as a small mirror in The Pile's layout."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import zstandard

from storage.artifacts.store import file_sha256
from storage.formats.documents import TEST, TRAIN, VAL
from storage.sources.layout import CHECKSUMS
from storage.sources.python_environment.texts import Text, collect_texts, take
from storage.sources.readers.records import SUBSET

TRAIN_FILE_BYTES = 2_000_000
"""Text per file of the mirror."""
FILE_SUFFIX = ".jsonl.zst"


def lay_out_mirror(folder: Path, text_bytes: int, val_fraction: float, test_fraction: float) -> None:
    """Write at least `text_bytes` of text into `folder` as train/NN.jsonl.zst, val, test and SHA256SUMS.txt.

    The list of checksums comes last: a folder that has one is complete and left alone. Documents lie in the
    order of their hashes; the first ones, at least the stated fractions of the text, are test and val, so
    that equal texts fall into the same split and both have a useful size even for a small corpus.
    Raises: InputError if the installation holds less text.
    """
    if (folder / CHECKSUMS).exists():
        return
    texts = sorted(collect_texts(text_bytes), key=lambda text: (_hash(text.text), text.kind, text.name))
    test, texts = _split_off(texts, test_fraction * text_bytes)
    val, train = _split_off(texts, val_fraction * text_bytes)
    shards = list(_cut(train, TRAIN_FILE_BYTES))
    width = max(2, len(str(len(shards) - 1)))
    files = {f"train/{number:0{width}d}{FILE_SUFFIX}": shard for number, shard in enumerate(shards)}
    files |= {f"{split}{FILE_SUFFIX}": documents for split, documents in ((VAL, val), (TEST, test)) if documents}
    (folder / TRAIN).mkdir(parents=True, exist_ok=True)
    for name, documents in files.items():
        _write(folder / name, documents)
    listing = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in files)
    temporary = folder / f"{CHECKSUMS}.partial"
    temporary.write_text(listing)
    os.replace(temporary, folder / CHECKSUMS)


def _split_off(texts: Sequence[Text], text_bytes: float) -> tuple[list[Text], list[Text]]:
    """Return the first documents with at least `text_bytes` and the others, never dividing equal texts."""
    end, size = 0, 0
    while end < len(texts) and (size < text_bytes or (end and texts[end].text == texts[end - 1].text)):
        size += len(texts[end].text.encode())
        end += 1
    return list(texts[:end]), list(texts[end:])


def _cut(texts: Sequence[Text], text_bytes: int) -> Iterator[list[Text]]:
    stream = iter(texts)
    while shard := take(stream, text_bytes):
        yield shard


def _write(path: Path, texts: Sequence[Text]) -> None:
    lines = (
        orjson.dumps(
            {"text": text.text, "meta": {SUBSET: text.kind, "package": text.package, "file": text.name}},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for text in texts
    )
    path.write_bytes(zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(lines)))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
