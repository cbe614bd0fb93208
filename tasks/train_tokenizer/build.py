"""The work of the train-tokenizer stage: train on a sample, check that text survives, report the compression."""

import importlib.metadata
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from storage.artifacts.records import JsonDict, Part, StoredFile
from storage.artifacts.store import Artifact
from storage.canonical import fingerprint
from storage.errors import InputError
from storage.formats.documents import DOCUMENTS, TRAIN, Document, shard_prefix
from storage.formats.tokenizer import CHECKED_TEXTS, check_round_trip, load_tokenizer
from storage.formats.tokens import EOT, FIELD, TOKENIZER, TONE
from storage.wording import counted, size
from tasks.core.context import StageContext
from tasks.train_tokenizer.config import TrainTokenizerConfig
from tasks.train_tokenizer.sample import sample_documents, without_long_words

log = logging.getLogger(__name__)

GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How GPT-4 splits text into words. Source: openai/tiktoken (MIT), tiktoken_ext/openai_public.py, cl100k_base."""

HELD_OUT_BYTES = 4_000_000
"""Text that must come back unchanged too, and on which the compression is reported: a few seconds of encoding."""

PROGRESS_BYTES = 10_000_000
LONGEST_SHOWN = 20


def train_tokenizer(config: TrainTokenizerConfig, corpus: Artifact, *, context: StageContext) -> Sequence[Part]:
    """Train on a sample of the train split, check that text survives, report how well it is compressed.

    Raises: InputError if the corpus is too small for the vocabulary; Fault if a text does not come back unchanged.
    """
    train = corpus.files(DOCUMENTS, prefix=shard_prefix(TRAIN))
    if not train:
        raise InputError(f"{corpus.ref} must have train shards, found none; add sources of the split `train`")
    held_out: list[Document] = []
    for shards in (corpus.files(DOCUMENTS, prefix="val-"), train):
        held_out = held_out or list(sample_documents(corpus, shards, HELD_OUT_BYTES, config.seed))
    part = context.finished_parts(["tokenizer"]).get("tokenizer")
    if part is None:
        part = _train_and_commit(config, corpus, train, held_out, context)
    _report(load_tokenizer(context.writer.open(part.files[0])), held_out, context)
    return [part]


def _train_and_commit(
    config: TrainTokenizerConfig,
    corpus: Artifact,
    shards: Sequence[StoredFile],
    held_out: Sequence[Document],
    context: StageContext,
) -> Part:

    # All at the beginning: there no vocabulary size and no re-training moves their ids.
    special = [EOT, TONE, FIELD, *(f"<|reserved_{number}|>" for number in range(config.reserved_tokens))]
    tokenizer = untrained_tokenizer(config.pattern)
    counts: Counter[str] = Counter()
    documents = sample_documents(corpus, shards, config.sample_bytes, config.seed)
    total = min(config.sample_bytes, corpus.counts["text_bytes"])
    tokenizer.train_from_iterator(_texts(documents, counts, total, context), bpe_trainer(config, special))
    counts["vocab_size"] = tokenizer.get_vocab_size()
    if counts["vocab_size"] < config.vocab_size:
        raise InputError(
            f"the sample must be large enough for {config.vocab_size:,} tokens, found {counts['vocab_size']:,} in "
            f"{counted(counts['sample_documents'], 'documents')} of {size(counts['sample_bytes'])}; lower "
            f"train_tokenizer.vocab_size or min_frequency, raise sample_bytes or add documents"
        )
    path = context.writer.scratch() / "tokenizer.json"
    tokenizer.save(str(path))
    texts = [*CHECKED_TEXTS, "".join(special), *(document.text for document in held_out)]
    check_round_trip(load_tokenizer(path), len(special), texts)
    return context.writer.commit("tokenizer", {TOKENIZER: path}, counts=counts, info=_info(path, special))


def untrained_tokenizer(pattern: str) -> "Tokenizer":
    """Return a byte-level tokenizer that splits text by a pattern and has no vocabulary yet."""

    tokenizer = Tokenizer(models.BPE())
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(GPT4_PATTERN), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def bpe_trainer(config: TrainTokenizerConfig, special: list[str]) -> "BpeTrainer":
    """Return the trainer; `special` get the first ids."""

    return BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special,
        initial_alphabet=ByteLevel.alphabet(),  # a byte that the sample lacks needs a token all the same
        show_progress=False,
    )


def _texts(
    documents: Iterable[Document], counts: Counter[str], total: int, context: StageContext
) -> Iterator[str]:
    for document in documents:
        shown = counts["sample_bytes"] // PROGRESS_BYTES
        counts["sample_documents"] += 1
        counts["sample_bytes"] += len(document.text.encode())
        if counts["sample_bytes"] // PROGRESS_BYTES > shown:
            context.progress(counts["sample_bytes"], total, "bytes of the sample")
        yield from without_long_words(document.text)
    context.progress(counts["sample_bytes"], counts["sample_bytes"], "bytes of the sample")
    log.info("learning merges from %d documents, %d bytes", counts["sample_documents"], counts["sample_bytes"])


def _info(path: Path, special: list[str]) -> JsonDict:
    tokenizer = json.loads(path.read_bytes())
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    return {
        "vocab_size": len(vocabulary),
        "eot_id": vocabulary[special[0]],
        "special_tokens": special,
        # Two trainers may learn the same merges in another order: trainer and order are told apart here.
        "merges_sha256": fingerprint(merges),
        "trainer": "huggingface/tokenizers",
        "trainer_version": importlib.metadata.version("tokenizers"),
    }


def _report(tokenizer: "Tokenizer", held_out: Iterable[Document], context: StageContext) -> None:
    documents: Counter[str] = Counter()
    text_bytes: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for document in held_out:
        documents[document.subset] += 1
        text_bytes[document.subset] += len(document.text.encode())
        tokens[document.subset] += len(tokenizer.encode_batch_fast([document.text])[0].ids)
    rows = [
        {
            "subset": subset,
            "documents": documents[subset],
            "bytes": text_bytes[subset],
            "tokens": tokens[subset],
            "bytes per token": round(text_bytes[subset] / max(1, tokens[subset]), 3),
        }
        for subset in sorted(documents)
    ]
    context.table("Compression of held-out text", rows)
    special = tokenizer.get_added_tokens_decoder()
    ordinary = [(name, token) for name, token in tokenizer.get_vocab().items() if token not in special]
    longest = sorted(ordinary, key=lambda item: (-len(item[0]), item[1]))
    # In a vocabulary every byte is one character, see GPT-2's table of bytes.
    rows = [
        {"id": token, "bytes": len(name), "text": repr(tokenizer.decode([token]))}
        for name, token in longest[:LONGEST_SHOWN]
    ]
    context.table("Longest tokens", rows)
