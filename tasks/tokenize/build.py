"""The work of the tokenize stage: encode every shard into a part of the same name."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter

from tokenizers import Tokenizer

from storage.artifacts.records import Part, StoredFile
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, Document, read_documents
from storage.formats.token_archive import TokenArchiveWriter
from storage.formats.tokenizer import load_tokenizer
from storage.formats.tokens import EOT, TOKENIZER, TOKENS, TokenFormat
from tasks.core.context import StageContext
from tasks.executors.local import for_each_shard
from tasks.tokenize.config import TokenizeConfig

BATCH_BYTES = 1_000_000
"""Text given to the encoder at once. It needs about 100 bytes of memory per token: 30 MB, and more only for a
document that is larger by itself."""

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""Work is spread over processes; threads inside the encoder scale badly (huggingface/tokenizers#1900)."""


def tokenize_corpus(
    config: TokenizeConfig, corpus: Artifact, tokenizer: Artifact, *, context: StageContext
) -> Sequence[Part]:
    """Encode every shard of the corpus into a part of the same name.

    Raises: InputError if the tokenizer has no end-of-text token.
    """

    shards = corpus.files(DOCUMENTS)
    names = [file.part for file in shards]
    finished = context.finished_parts(names)
    work = _TokenizeShard(context.writer, corpus, tokenizer)
    left = [file for file in shards if file.part not in finished]
    for_each_shard(context, left, work, name=attrgetter("part"))
    committed = context.writer.parts()
    parts = [committed[name] for name in names]
    _report(parts, context)
    return parts


@dataclass(frozen=True)
class _TokenizeShard:
    """Encodes one shard and commits it, in a worker process."""

    writer: ArtifactWriter
    corpus: Artifact
    tokenizer: Artifact

    def __call__(self, shard: StoredFile) -> None:

        with one_encoder_thread():
            encoder, token_format = load_encoder(self.tokenizer)
            counts: Counter[str] = Counter(documents=0, text_bytes=0, tokens=0)
            path = self.writer.scratch() / f"{shard.part}.parquet"
            with TokenArchiveWriter(path, token_format) as archive:
                for batch in batches(read_documents(self.corpus.open(shard))):
                    encodings = encoder.encode_batch_fast([document.text for document in batch])
                    for document, encoding in zip(batch, encodings, strict=True):
                        size = len(document.text.encode())
                        tokens = archive.write(document.id, document.subset, size, encoding.ids, document.meta)
                        _count(counts, document.subset, size, tokens)
        self.writer.commit(shard.part, {TOKENS: path}, counts=counts)


def load_encoder(artifact: Artifact) -> tuple["Tokenizer", "TokenFormat"]:
    """Open the tokenizer of a train-tokenizer artifact, and say what its tokens mean on disk."""

    file = artifact.file(TOKENIZER)
    encoder = load_tokenizer(artifact.open(file))
    eot_id = encoder.token_to_id(EOT)
    if eot_id is None:
        raise InputError(f"the tokenizer must have the token {EOT}, {artifact.ref} has none; train another one")
    return encoder, TokenFormat(encoder.get_vocab_size(), eot_id, file.sha256)


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield consecutive documents of BATCH_BYTES of text together, or one that is larger by itself."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        document_bytes = len(document.text.encode())
        if batch and size + document_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += document_bytes
    if batch:
        yield batch


@contextmanager
def one_encoder_thread() -> Iterator[None]:
    """Make encoders of this process use no threads of their own, and restore the environment afterwards."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _count(counts: Counter[str], subset: str, size: int, tokens: int) -> None:
    for name, amount in (("documents", 1), ("text_bytes", size), ("tokens", tokens)):
        counts[name] += amount
        counts[f"{name}.{subset}"] += amount


def _report(parts: Sequence[Part], context: StageContext) -> None:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    subsets = sorted(name.partition(".")[2] for name in counts if name.startswith("tokens."))
    rows = [
        {
            "subset": subset or "all",
            "documents": counts[f"documents{dot}{subset}"],
            "tokens": counts[f"tokens{dot}{subset}"],
            "bytes per token": round(counts[f"text_bytes{dot}{subset}"] / counts[f"tokens{dot}{subset}"], 3),
        }
        for dot, subset in [*((".", subset) for subset in subsets), ("", "")]
        if counts[f"tokens{dot}{subset}"]
    ]
    context.table("Tokens per subset", rows)
