import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError, InputError
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter
from storage.formats.token_archive import TokenArchive
from storage.formats.tokens import EOT, TOKENIZER, TOKENS, TokenFormat
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.tokenize.build import BATCH_BYTES, batches
from tasks.tokenize.config import TokenizeConfig
from tasks.tokenize.stage import STAGE

TEXTS = [
    "The quick brown fox; it's 13 o'clock.",
    "",
    "Татар теле — әни җырлый, үзе өенә кайтты.",
    "敏捷的棕色狐狸。日本語、한국어",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301\ufe0f \U0010ffff",
    "nul \0 and \r\nline\rends\u2028 \ufeff\u00a0 ",
    f"a text that says {EOT} and <|reserved_0|>{EOT}{EOT}",
    EOT,
    "a" * 5000 + " " * 5000,
]
Corpus = dict[str, list[Document]]
CORPUS = {
    "train-00000": [Document(f"a:{n}", f"subset {n % 2}", text) for n, text in enumerate(TEXTS)],
    "train-00001": [Document(f"b:{n}", "subset 0", text * 7) for n, text in enumerate(TEXTS)],
    "val-00000": [Document("c:0", "dotted.subset", "only one")],
    "test-00000": [],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def published(writer: ArtifactWriter, parts: list[Any]) -> Artifact:
    return writer.publish(
        parts,
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


def corpus_artifact(store: Store, corpus: Corpus) -> Artifact:
    writer = ArtifactWriter(store, "dedup", "0" * 16)
    parts = []
    for part, documents in corpus.items():
        path = writer.scratch() / f"{part}.jsonl.zst"
        with DocumentWriter(path) as shard:
            for document in documents:
                shard.write(document)
        parts.append(writer.commit(part, {DOCUMENTS: path}, counts=shard.counts()))
    return published(writer, parts)


def new_tokenizer(special: tuple[str, ...] = (EOT, "<|reserved_0|>"), vocab_size: int = 400) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def tokenizer_artifact(store: Store, tokenizer: Tokenizer) -> Artifact:
    writer = ArtifactWriter(store, "train-tokenizer", "0" * 16)
    path = writer.scratch() / "tokenizer.json"
    tokenizer.save(str(path))
    return published(writer, [writer.commit("tokenizer", {TOKENIZER: path})])


def tokenize(
    store: Store, corpus: Corpus = CORPUS, tokenizer: Tokenizer | None = None, workers: int = 1
) -> Artifact:
    inputs = {
        "corpus": corpus_artifact(store, corpus),
        "tokenizer": tokenizer_artifact(store, tokenizer or new_tokenizer()),
    }
    return run_stage(
        STAGE, TokenizeConfig(), inputs, RunContext(store, "run", {}, Execution(workers=workers))
    ).artifact


def test_tokenize_archive_equals_encoding_each_document_alone(store: Store) -> None:
    artifact = tokenize(store)
    reference = new_tokenizer()
    reference.encode_special_tokens = True
    assert [file.part for file in artifact.files(TOKENS)] == list(CORPUS)
    for file in artifact.files(TOKENS):
        table = pq.read_table(artifact.open(file))
        assert table.to_pylist() == [
            {
                "id": document.id,
                "subset": document.subset,
                "meta": "{}",
                "n_bytes": len(document.text.encode()),
                "tokens": [*reference.encode(document.text).ids, 0],
            }
            for document in CORPUS[file.part]
        ]


def test_tokenize_text_comes_back_with_special_tokens_spelled_out(store: Store) -> None:
    artifact = tokenize(store)
    decoder = new_tokenizer()
    for file in artifact.files(TOKENS):
        for row, document in zip(pq.read_table(artifact.open(file)).to_pylist(), CORPUS[file.part], strict=True):
            *tokens, end = row["tokens"]
            assert end == 0
            assert not {0, 1} & set(tokens)  # a text can neither end a document nor forge a reserved token
            assert decoder.decode(tokens, skip_special_tokens=False) == document.text


def test_tokenize_counts_are_those_of_the_documents(store: Store) -> None:
    artifact = tokenize(store)
    rows = [row for file in artifact.files(TOKENS) for row in pq.read_table(artifact.open(file)).to_pylist()]
    for subset in ("subset 0", "subset 1", "dotted.subset"):
        mine = [row for row in rows if row["subset"] == subset]
        assert artifact.counts[f"documents.{subset}"] == len(mine)
        assert artifact.counts[f"tokens.{subset}"] == sum(len(row["tokens"]) for row in mine)
        assert artifact.counts[f"text_bytes.{subset}"] == sum(row["n_bytes"] for row in mine)
    assert artifact.counts["documents"] == len(rows)
    assert artifact.counts["tokens"] == sum(len(row["tokens"]) for row in rows)
    assert artifact.counts["text_bytes"] == sum(len(doc.text.encode()) for docs in CORPUS.values() for doc in docs)


def test_tokenize_archive_says_what_its_tokens_mean(store: Store) -> None:
    artifact = tokenize(store)
    sha256 = tokenizer_artifact(store, new_tokenizer()).file(TOKENIZER).sha256
    formats = {TokenArchive(artifact.open(file)).format for file in artifact.files(TOKENS)}
    assert formats == {TokenFormat(400, 0, sha256)}


def test_tokenize_vocabulary_above_65536_is_stored_in_32_bits(store: Store) -> None:
    tokenizer = new_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(70_000)])
    corpus = {"train-00000": [Document("a", "s", "word69999 word1")]}
    artifact = tokenize(store, corpus, tokenizer)
    tokens = pq.read_table(artifact.open(artifact.file(TOKENS)))["tokens"]
    assert str(tokens.type) == "list<element: int32 not null>"
    assert tokens.to_pylist() == [[*tokenizer.encode("word69999 word1").ids, 0]]
    assert max(tokens.to_pylist()[0]) == 400 + 69_999


def test_tokenize_two_workers_make_the_same_artifact_as_one(tmp_path: Path) -> None:
    one = tokenize(Store(str(tmp_path / "one")), workers=1)
    two = tokenize(Store(str(tmp_path / "two")), workers=2)
    assert one.content_digest == two.content_digest
    assert one.counts == two.counts


def test_tokenize_interrupted_keeps_finished_parts(store: Store) -> None:
    first = tokenize(store)
    folder = f"artifacts/tokenize/{first.manifest.key}"
    store.backend.delete(f"{folder}/manifest.json")
    store.backend.delete(f"{folder}/parts/train-00001.json")
    again = tokenize(store)
    assert again.content_digest == first.content_digest
    kept = [old.path == new.path for old, new in zip(first.files(TOKENS), again.files(TOKENS), strict=True)]
    assert kept == [True, False, True, True]


@pytest.mark.parametrize("text", ["a" * 2_000_000, "\0 👩‍👩‍👧‍👦\r\n" * 60_000], ids=["one word", "many"])
def test_tokenize_document_of_two_megabytes_is_encoded_whole(store: Store, text: str) -> None:
    artifact = tokenize(store, {"train-00000": [Document("a", "s", "x"), Document("b", "s", text)]})
    *tokens, _ = pq.read_table(artifact.open(artifact.file(TOKENS)))["tokens"][1].as_py()
    assert new_tokenizer().decode(tokens) == text


def test_tokenize_leaves_the_environment_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    before = dict(os.environ)
    tokenize(store, workers=1)  # one worker is this very process
    assert dict(os.environ) == before


def test_tokenize_tokenizer_without_end_of_text_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="endoftext"):
        tokenize(store, tokenizer=new_tokenizer(special=("<s>",)))


def test_tokenize_damaged_shard_stops_the_stage(store: Store) -> None:
    corpus = corpus_artifact(store, CORPUS)
    path = corpus.open(corpus.files(DOCUMENTS)[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    inputs = {"corpus": corpus, "tokenizer": tokenizer_artifact(store, new_tokenizer())}
    with pytest.raises(CorruptFileError, match="sha256"):
        run_stage(STAGE, TokenizeConfig(), inputs, RunContext(store, "run", {}, Execution(workers=1)))


def test_batches_keep_order_and_bound_the_text_given_at_once() -> None:
    sizes = [10, BATCH_BYTES - 10, 1, 3 * BATCH_BYTES, 5, 0, 7]
    documents = [Document(str(number), "s", "x" * size) for number, size in enumerate(sizes)]
    grouped = [[document.id for document in batch] for batch in batches(documents)]
    assert grouped == [["0", "1"], ["2"], ["3"], ["4", "5", "6"]]
