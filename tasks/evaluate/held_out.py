"""The text that a model is measured on and compared by: held-out documents, and a sample of the training split."""

import heapq
import lzma
from dataclasses import dataclass, field

import zstandard
from xxhash import xxh64_intdigest

from storage.artifacts.store import Artifact
from storage.formats.documents import DOCUMENTS, TRAIN, Document, read_documents, shard_prefix
from tasks.evaluate.foresee import no_held_out_text

SAMPLE_SHARDS = 16

PRIMER_BYTES = 2_000_000
"""Training text that the baselines learn from: with a scored subset it fits the windows of both compressors."""


@dataclass
class HeldOut:
    """The texts of one subset that are scored, and how much the split holds."""

    texts: list[str] = field(default_factory=list)
    text_bytes: int = 0
    split_documents: int = 0
    split_bytes: int = 0
    is_full: bool = False


def read_held_out(corpus: Artifact, split: str, max_bytes_per_subset: int) -> dict[str, HeldOut]:
    """Return what is scored, by subset in alphabetical order.

    Of each subset the first documents in the order of the shards; the one that reaches the bound is cut there, at
    a character, so that a single book does not decide how long an evaluation takes.

    Raises: InputError if the split holds no text.
    """
    subsets: dict[str, HeldOut] = {}
    for file in corpus.files(DOCUMENTS, prefix=shard_prefix(split)):
        for document in read_documents(corpus.open(file)):
            group = subsets.setdefault(document.subset, HeldOut())
            data = document.text.encode()
            group.split_documents += 1
            group.split_bytes += len(data)
            room = 0 if group.is_full else max_bytes_per_subset - group.text_bytes
            group.is_full = len(data) >= room
            # An incomplete character at the cut is the only thing that cannot be decoded.
            text = data[:room].decode(errors="ignore")
            if text:
                group.texts.append(text)
                group.text_bytes += len(text.encode())
    if not any(group.texts for group in subsets.values()):
        raise no_held_out_text(corpus, split)
    return {subset: group for subset, group in sorted(subsets.items()) if group.texts}


def read_train_text(corpus: Artifact, max_bytes: int = PRIMER_BYTES) -> list[str]:
    """Return about so many bytes of training text that baselines may learn from, as the model could.

    The first documents of up to SAMPLE_SHARDS shards, spread evenly over the split; none if there is no split.
    """
    shards = corpus.files(DOCUMENTS, prefix=shard_prefix(TRAIN))
    taken = min(SAMPLE_SHARDS, len(shards))
    texts = []
    for number in range(taken):
        room = max_bytes // taken
        for document in read_documents(corpus.open(shards[number * len(shards) // taken])):
            text = document.text.encode()[:room].decode(errors="ignore")
            texts.append(text)
            room -= len(text.encode())
            if room < 4:
                break
    return [text for text in texts if text]


def primed_bytes(texts: list[str], primer: str) -> dict[str, int]:
    """Return the size of the texts after compressors that have read `primer`, training text, before.

    zstd has it as a raw dictionary; for xz it is what the texts add to the size of the primer.
    """
    data, before = "".join(texts).encode(), primer.encode()
    kind = zstandard.DICT_TYPE_RAWCONTENT
    dictionary = zstandard.ZstdCompressionDict(before, dict_type=kind) if len(before) >= 8 else None
    primed = zstandard.ZstdCompressor(level=19, write_checksum=False, dict_data=dictionary)
    return {
        "zstd_19_primed": len(primed.compress(data)),
        "xz_9_primed": len(lzma.compress(before + data, preset=9)) - len(lzma.compress(before, preset=9)),
    }


def compressed_bytes(texts: list[str]) -> dict[str, int]:
    """Return the size of the texts, put together without a mark between them, after each compressor.

    zstd runs at level 19 with that level's own window of 8 MiB, xz with preset 9. A compressor begins with nothing
    and sees these bytes only; the model was trained on others of their kind.
    """
    data = "".join(texts).encode()
    return {
        "zstd_19": len(zstandard.ZstdCompressor(level=19, write_checksum=False).compress(data)),
        "xz_9": len(lzma.compress(data, preset=9)),
    }


def read_train_sample(corpus: Artifact, documents: int, max_characters: int) -> tuple[list[Document], int]:
    """Return at most so many documents of the train split, each one's beginning, and the number of shards read.

    Of up to SAMPLE_SHARDS shards, spread evenly over the split, those documents whose ids have the smallest hash:
    a sample that favours no subset, place or length, and costs the same however large the corpus is.
    """
    shards = corpus.files(DOCUMENTS, prefix=shard_prefix(TRAIN))
    taken = min(SAMPLE_SHARDS, len(shards))
    beginnings = (
        Document(document.id, document.subset, document.text[:max_characters])
        for number in range(taken)
        for document in read_documents(corpus.open(shards[number * len(shards) // taken]))
    )
    chosen = heapq.nsmallest(documents, beginnings, key=lambda document: xxh64_intdigest(document.id.encode()))
    return chosen, taken
