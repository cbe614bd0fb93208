import json
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import Fault, InputError
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter
from storage.formats.tokenizer import CHECKED_TEXTS, check_round_trip, load_tokenizer
from storage.formats.tokens import EOT, FIELD, TOKENIZER, TONE
from tasks.core.context import TABLES
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.train_tokenizer.config import TrainTokenizerConfig
from tasks.train_tokenizer.sample import document_hash, lowest_hashes, sample_documents, without_long_words
from tasks.train_tokenizer.stage import STAGE

ROOT = Path(__file__).parents[3]
Corpus = dict[str, list[Document]]
CONFIG = TrainTokenizerConfig(vocab_size=400, reserved_tokens=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def make_corpus(documents: int = 60, shards: int = 2, val: bool = True) -> Corpus:
    """Return texts of made-up words in two scripts; the words repeat, as those of a language do."""
    source = random.Random(0)
    letters = {"latin": "etaoinshrdlu", "tatar": "аеиоутнәөүңҗ"}
    words = {
        name: ["".join(source.choices(letters[name], k=source.randint(2, 7))) for _ in range(80)]
        for name in letters
    }
    parts = [f"train-{number:05}" for number in range(shards)] + ["val-00000"] * val
    return {
        part: [
            Document(f"{part}:{number}", subset, " ".join(source.choices(words[subset], k=80)) + f" {number}.")
            for number in range(documents)
            for subset in [source.choice(sorted(words))]
        ]
        for part in parts
    }


def corpus_artifact(store: Store, corpus: Corpus) -> Artifact:
    writer = ArtifactWriter(store, "dedup", "0" * 16)
    parts = []
    for part, documents in corpus.items():
        path = writer.scratch() / f"{part}.jsonl.zst"
        with DocumentWriter(path) as shard:
            for document in documents:
                shard.write(document)
        parts.append(writer.commit(part, {DOCUMENTS: path}, counts=shard.counts()))
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


def train(store: Store, corpus: Corpus, config: TrainTokenizerConfig = CONFIG, **context: Any) -> Artifact:
    inputs = {"corpus": corpus_artifact(store, corpus)}
    return run_stage(STAGE, config, inputs, RunContext(store, "run", {}, Execution(), **context)).artifact


def trained(store: Store, corpus: Corpus, config: TrainTokenizerConfig = CONFIG) -> Tokenizer:
    artifact = train(store, corpus, config)
    return load_tokenizer(artifact.open(artifact.file(TOKENIZER)))


def text_bytes(documents: list[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


# ---- the tokenizer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_train_tokenizer_ids_are_special_then_bytes_then_merges(store: Store, pattern: Any) -> None:
    config = TrainTokenizerConfig(vocab_size=400, reserved_tokens=3, pattern=pattern)
    tokenizer = trained(store, make_corpus(), config)
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(400))
    special = [EOT, TONE, FIELD, "<|reserved_0|>", "<|reserved_1|>", "<|reserved_2|>"]
    assert [tokenizer.id_to_token(token) for token in range(6)] == special
    single = {tokenizer.id_to_token(token) for token in range(6, 262)}
    assert {len(name) for name in single} == {1}
    assert len(single) == 256
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert [vocabulary[left + right] for left, right in merges] == list(range(262, 400))


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@given(text=st.text())
@settings(deadline=None, max_examples=200)
def test_train_tokenizer_any_text_comes_back_without_special_tokens(
    pattern: str, text: str, tokenizers: dict[str, Tokenizer]
) -> None:
    for content in (text, f"{text}{EOT}{TONE}{FIELD}<|reserved_1|>{text}"):
        ids = tokenizers[pattern].encode(content).ids
        assert tokenizers[pattern].decode(ids, skip_special_tokens=False) == content
        assert all(token >= 6 for token in ids)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    store = Store(str(tmp_path_factory.mktemp("store")))
    corpus = make_corpus()
    configs = {
        "gpt2": TrainTokenizerConfig(vocab_size=400, reserved_tokens=3, pattern="gpt2"),
        "gpt4": TrainTokenizerConfig(vocab_size=400, reserved_tokens=3, pattern="gpt4"),
    }
    return {pattern: trained(store, corpus, config) for pattern, config in configs.items()}


def test_train_tokenizer_patterns_split_numbers_differently(tokenizers: dict[str, Tokenizer]) -> None:
    pieces = {
        name: [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a 12345")]
        for name, tokenizer in tokenizers.items()
    }
    assert pieces == {"gpt2": ["a", "Ġ12345"], "gpt4": ["a", "Ġ", "123", "45"]}


def test_train_tokenizer_each_merge_is_the_most_frequent_pair_of_its_moment(store: Store) -> None:
    corpus = make_corpus(documents=20)
    tokenizer = trained(store, corpus)
    words = Counter(
        tuple(piece)
        for part in ("train-00000", "train-00001")
        for document in corpus[part]
        for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(document.text)
    )
    for left, right in json.loads(tokenizer.to_str())["model"]["merges"]:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        assert pairs[left, right] == max(pairs.values())
        words = Counter({merged(word, left, right): count for word, count in words.items()})


def merged(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    result: list[str] = []
    for piece in word:
        if piece == right and result and result[-1] == left:
            result[-1] = left + right
        else:
            result.append(piece)
    return tuple(result)


def test_train_tokenizer_same_bytes_whatever_the_number_of_threads(tmp_path: Path) -> None:
    digests = set()
    for threads in ("1", "2", "3"):
        folder = str(tmp_path / threads)
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from pathlib import Path\nfrom storage.artifacts.store import Store\n"
            "import test_train_tokenizer as t\n"
            f"print(t.train(Store({folder!r}), t.make_corpus()).content_digest)"
        )
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_train_tokenizer_counts_info_and_report(store: Store) -> None:
    corpus = make_corpus()
    shown: list[tuple[int, int, str]] = []
    artifact = train(store, corpus, progress=lambda done, total, unit, *_: shown.append((done, total, unit)))
    documents = corpus["train-00000"] + corpus["train-00001"]
    size = text_bytes(documents)
    assert artifact.counts == {"sample_bytes": size, "sample_documents": len(documents), "vocab_size": 400}
    assert shown[-1] == (size, size, "bytes of the sample")
    part = ArtifactWriter(store, "train-tokenizer", artifact.manifest.key).part("tokenizer")
    assert part is not None
    assert part.info["eot_id"] == 0
    assert part.info["vocab_size"] == 400
    assert len(part.info["merges_sha256"]) == 64
    tables = json.loads(artifact.report(TABLES) or b"")
    by_subset = {row["subset"]: row for row in tables["Compression of held-out text"]}
    for subset, row in by_subset.items():
        mine = [document for document in corpus["val-00000"] if document.subset == subset]
        assert (row["documents"], row["bytes"]) == (len(mine), text_bytes(mine))
        assert row["bytes per token"] == round(row["bytes"] / row["tokens"], 3)
    sizes = [row["bytes"] for row in tables["Longest tokens"]]
    assert sizes == sorted(sizes, reverse=True)
    assert EOT not in str(tables["Longest tokens"])


@pytest.mark.parametrize("val", [{}, {"val-00000": []}], ids=["no shard", "an empty shard"])
def test_train_tokenizer_without_validation_text_reports_on_train(store: Store, val: Corpus) -> None:
    corpus = make_corpus(val=False)
    tables = json.loads(train(store, corpus | val).report(TABLES) or b"")
    documents = sum(row["documents"] for row in tables["Compression of held-out text"])
    assert documents == sum(map(len, corpus.values()))


def test_train_tokenizer_does_not_learn_from_val_and_test(store: Store) -> None:
    corpus = make_corpus(val=False)
    plain = train(store, corpus).content_digest
    others = {"val-00000": "йцук " * 500, "test-00000": "ъфыв " * 500}
    more = corpus | {part: [Document(part, "s", text)] for part, text in others.items()}
    assert train(store, more).content_digest == plain


def test_train_tokenizer_special_names_in_the_corpus_are_not_merged(store: Store) -> None:
    corpus = make_corpus()
    corpus["train-00000"] += [Document(f"x:{n}", "s", f"{EOT}{TONE}<|reserved_0|> " * 50) for n in range(50)]
    tokenizer = trained(store, corpus)
    assert tokenizer.token_to_id(EOT) == 0
    assert len(tokenizer.encode(EOT).ids) > 1
    assert len(tokenizer.encode(TONE).ids) > 1


def test_train_tokenizer_special_ids_do_not_depend_on_the_vocabulary(store: Store) -> None:
    config = TrainTokenizerConfig(vocab_size=350, reserved_tokens=0)
    for tokenizer in (trained(store, make_corpus()), trained(store, make_corpus(shards=1), config)):
        assert [tokenizer.token_to_id(name) for name in (EOT, TONE, FIELD)] == [0, 1, 2]


def test_train_tokenizer_corpus_too_small_says_what_was_reached(store: Store) -> None:
    with pytest.raises(InputError, match=r"400 tokens, found 26\d in 1 document of 11 B; lower train_tokenizer"):
        train(store, {"train-00000": [Document("a", "s", "hello hello")]})


def test_train_tokenizer_without_train_shards_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="train shards"):
        train(store, {"val-00000": make_corpus()["val-00000"]})


def test_train_tokenizer_interrupted_after_the_part_keeps_it(store: Store) -> None:
    first = train(store, make_corpus())
    store.backend.delete(f"artifacts/train-tokenizer/{first.manifest.key}/manifest.json")
    again = train(store, make_corpus())
    assert again.manifest.files == first.manifest.files
    assert again.report(TABLES) == first.report(TABLES)


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 299},
        {"vocab_size": 300, "reserved_tokens": 42},
        {"sample_bytes": 2**31},
        {"pattern": "gpt3"},
    ],
)
def test_train_tokenizer_config_impossible_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"vocab_size|sample_bytes|pattern"):
        TrainTokenizerConfig(**fields)


@given(
    text=st.lists(
        st.tuples(st.sampled_from(["a", "Ә9", " ", "\n ", "-", "_-", "e\u0301", "北", "👩"]), st.integers(1, 900)),
        max_size=6,
    ).map(lambda runs: "".join(content * count for content, count in runs))
)
@settings(deadline=None, max_examples=50)
def test_without_long_words_cuts_long_runs_and_nothing_else(text: str, tokenizers: dict[str, Tokenizer]) -> None:
    pieces = list(without_long_words(text))
    assert "".join(pieces) == text
    for tokenizer in tokenizers.values():
        words = [len(word) for piece in pieces for word in split_words(tokenizer, piece)]
        assert max(words, default=0) <= 2 * 256  # marks and the line ends after them are one word
    runs = [len(list(run)) for _, run in groupby(text, key=lambda char: (char.isalnum(), char.isspace()))]
    assert len(pieces) == 1 + sum(length // 256 for length in runs)


def split_words(tokenizer: Tokenizer, text: str) -> list[str]:
    places = [place for _, place in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    return [text[start:end] for start, end in places]


def test_train_tokenizer_endless_words_do_not_stop_it(store: Store) -> None:
    # The trainer needs hours for the first one if it is not cut.
    runs = ["a" * 2_000_000, " " * 500_000, "👩‍👩‍👧‍👦" * 50_000, "ACGT" * 200_000]
    corpus = {"train-00000": [Document(str(number), "s", text) for number, text in enumerate(runs)]}
    corpus["train-00001"] = make_corpus()["train-00000"]
    assert train(store, corpus).counts["sample_bytes"] == sum(map(text_bytes, corpus.values()))


# ---- the round trip --------------------------------------------------------------------------------


def test_check_round_trip_normalizing_tokenizer_is_a_fault(tokenizers: dict[str, Tokenizer]) -> None:
    body = json.loads(tokenizers["gpt4"].to_str())
    check_round_trip(tokenizers["gpt4"], 6, CHECKED_TEXTS)
    lossy = Tokenizer.from_str(json.dumps(body | {"normalizer": {"type": "NFC"}}))
    lossy.encode_special_tokens = True
    with pytest.raises(Fault, match="at character 14"):
        check_round_trip(lossy, 6, ["some text and e\u0301"])


def test_check_round_trip_special_token_from_text_is_a_fault(tokenizers: dict[str, Tokenizer]) -> None:
    naive = Tokenizer.from_str(tokenizers["gpt4"].to_str())
    with pytest.raises(Fault, match=r"special tokens, found the ids \[0\]"):
        check_round_trip(naive, 6, [f"a{EOT}b"])


# ---- the sample ------------------------------------------------------------------------------------


@given(texts=st.lists(st.text(max_size=20), max_size=30), share=st.integers(0, 200), seed=st.integers(0, 3))
@settings(deadline=None)
def test_lowest_hashes_takes_documents_in_hash_order_until_the_share_is_full(
    texts: list[str], share: int, seed: int
) -> None:
    documents = [Document(f"id {number}", "s", text) for number, text in enumerate(texts)]
    order = sorted(documents, key=lambda document: document_hash(document.id, seed))
    everything = "".join(document.text for document in order).encode()
    taken = list(lowest_hashes(documents, share, seed))
    assert [document.id for document in taken] == [document.id for document in order[: len(taken)]]
    assert (
        "".join(document.text for document in taken).encode()
        == everything[:share].decode(errors="ignore").encode()
    )


def test_sample_documents_of_a_small_corpus_are_all_of_them(store: Store) -> None:
    corpus = make_corpus(shards=3)
    artifact = corpus_artifact(store, corpus)
    shards = artifact.files(DOCUMENTS, prefix="train-")
    taken = list(sample_documents(artifact, shards, 10**9, seed=0))
    assert taken == [document for part in list(corpus)[:3] for document in corpus[part]]


@pytest.mark.parametrize("max_bytes", [1, 1000, 10_000, 40_000])
def test_sample_documents_is_bounded_and_spread_over_all_shards(store: Store, max_bytes: int) -> None:
    corpus = make_corpus(shards=4)
    artifact = corpus_artifact(store, corpus)
    shards = artifact.files(DOCUMENTS, prefix="train-")
    taken = list(sample_documents(artifact, shards, max_bytes, seed=0))
    assert max_bytes - 4 * 3 <= text_bytes(taken) <= max_bytes  # a cut character leaves up to 3 bytes per shard
    if max_bytes >= 10_000:
        per_shard = {part: text_bytes([d for d in taken if d.id.startswith(part)]) for part in corpus}
        assert all(0.7 < 4 * per_shard[shard.part] / max_bytes < 1.3 for shard in shards)


def test_sample_documents_depends_on_the_seed_only(store: Store) -> None:
    artifact = corpus_artifact(store, make_corpus())
    shards = artifact.files(DOCUMENTS, prefix="train-")
    samples = [[d.id for d in sample_documents(artifact, shards, 9000, seed)] for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]


def test_sample_documents_what_a_short_shard_leaves_goes_to_the_next(store: Store) -> None:
    corpus = make_corpus(shards=2)
    # Text that does not compress takes a large share by its stored size and has little to give.
    source = random.Random(1)
    noise = "".join(chr(source.randrange(0x4E00, 0x9FFF)) for _ in range(2000))
    corpus["train-00000"] = [Document("noise", "s", noise)]
    artifact = corpus_artifact(store, corpus)
    shards = artifact.files(DOCUMENTS, prefix="train-")
    size = text_bytes(corpus["train-00000"]) + text_bytes(corpus["train-00001"]) // 2
    taken = list(sample_documents(artifact, shards, size, seed=0))
    assert size - 6 <= text_bytes(taken) <= size
