import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.formats.packed import PackedSequences
from storage.formats.probes import NO_LABEL, Probes
from storage.formats.token_archive import TokenArchiveWriter
from storage.formats.tokens import EOT as EOT_NAME
from storage.formats.tokens import FIELD, SEQUENCES, TOKENIZER, TOKENS, TONE, TokenFormat
from tasks.core.context import TABLES
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES, tone_label
from tasks.pack.config import PackConfig
from tasks.pack.packing import best_fit_decreasing, cut_documents, pack_pieces
from tasks.pack.stage import STAGE
from tasks.train_tokenizer.build import bpe_trainer, untrained_tokenizer
from tasks.train_tokenizer.config import TrainTokenizerConfig

EOT, VOCAB_SIZE = 0, 500
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)
CONFIG = PackConfig(sequence_length=16, row_group_sequences=5)

Corpus = dict[str, list[list[int]]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def make_corpus(sizes: dict[str, int], seed: int = 0) -> Corpus:
    """Return documents per part, each token list ending with EOT and all documents different."""
    random = np.random.default_rng(seed)
    lengths = {part: random.geometric(1 / 12, count).tolist() for part, count in sizes.items()}
    return {
        part: [[*random.integers(1, VOCAB_SIZE, length - 1).tolist(), EOT] for length in lengths[part]]
        for part in sizes
    }


def publish(writer: ArtifactWriter, parts: list[Any]) -> Artifact:
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


def inputs(store: Store, corpus: Corpus, made_with: bytes = b"tokenizer") -> dict[str, Artifact]:
    writer = ArtifactWriter(store, "train-tokenizer", "0" * 16)
    (writer.scratch() / "tokenizer.json").write_bytes(b"tokenizer")
    tokenizer = publish(writer, [writer.commit("tokenizer", {TOKENIZER: writer.scratch() / "tokenizer.json"})])
    (writer.scratch() / "other.json").write_bytes(made_with)
    sha256 = writer.commit("other", {TOKENIZER: writer.scratch() / "other.json"}).files[0].sha256
    writer = ArtifactWriter(store, "tokenize", "0" * 16)
    parts = []
    for part, documents in corpus.items():
        path = writer.scratch() / f"{part}.parquet"
        with TokenArchiveWriter(path, TokenFormat(VOCAB_SIZE, EOT, sha256)) as archive:
            for number, tokens in enumerate(documents):
                archive.write(f"{part}:{number}", "subset", len(tokens), tokens[:-1])
        parts.append(writer.commit(part, {TOKENS: path}))
    return {"tokens": publish(writer, parts), "tokenizer": tokenizer}


def pack(
    store: Store, corpus: Corpus, config: PackConfig = CONFIG, workers: int = 1, made_with: bytes = b"tokenizer"
) -> Artifact:
    context = RunContext(store, "run", {}, Execution(workers=workers))
    return run_stage(STAGE, config, inputs(store, corpus, made_with), context).artifact


def rows_of(artifact: Artifact, prefix: str) -> list[list[list[int]]]:
    """Return the pieces of every row, read by pyarrow and split by the stored lengths."""
    rows = []
    for file in artifact.files(SEQUENCES, prefix=prefix):
        table = pq.read_table(artifact.open(file))
        for data, lengths in zip(table["tokens"].to_pylist(), table["doc_lens"].to_pylist(), strict=True):
            row = np.frombuffer(data, np.uint16)
            assert not row[sum(lengths) :].any()  # padding
            rows.append([piece.tolist() for piece in np.split(row, np.cumsum(lengths))[:-1]])
    return rows


def slow_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Return how full each bin is, from the textbook: longest first, into the fullest bin that has room."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, used in enumerate(bins) if used + length <= capacity]
        if fitting:
            bins[max(fitting, key=lambda index: bins[index])] += length
        else:
            bins.append(length)
    return sorted(bins)


def pack_documents(lengths: NDArray[np.int64], row_tokens: int) -> list[list[tuple[int, int]]]:
    pieces, _ = cut_documents(lengths, row_tokens)
    return list(pack_pieces(pieces, row_tokens))


# ---- the placement ---------------------------------------------------------------------------------


@given(lengths=LENGTHS, spare=st.integers(0, 30))
@settings(deadline=None)
def test_best_fit_decreasing_fills_rows_like_the_textbook(lengths: list[int], spare: int) -> None:
    capacity = max(lengths) + spare
    used = Counter[int]()
    for row, length in zip(best_fit_decreasing(np.array(lengths), capacity), lengths, strict=True):
        used[row] += length
    assert sorted(used.values()) == slow_best_fit(lengths, capacity)


@given(lengths=LENGTHS, row_tokens=st.integers(1, 45))
@settings(deadline=None)
def test_pack_documents_places_every_token_once_and_cuts_only_long_documents(
    lengths: list[int], row_tokens: int
) -> None:
    rows = pack_documents(np.array(lengths), row_tokens)
    assert all(sum(end - start for start, end in row) <= row_tokens for row in rows)
    pieces = sorted(piece for row in rows for piece in row)
    borders = [0, *np.cumsum(lengths).tolist()]
    expected = [
        (start, min(start + row_tokens, end))
        for begin, end in pairwise(borders)
        for start in range(begin, end, row_tokens)
    ]
    assert pieces == expected


def test_pack_documents_keeps_the_order_of_documents_within_and_among_rows() -> None:
    lengths = np.random.default_rng(0).geometric(0.1, 500)
    rows = pack_documents(lengths, 32)
    assert all(row == sorted(row) for row in rows)
    assert rows == sorted(rows)


def test_pack_documents_wastes_little() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1.3, 3000).astype(np.int64) + 1
    rows = pack_documents(lengths, 257)
    assert 1 - lengths.sum() / (len(rows) * 257) < 0.005


def test_pack_documents_of_nothing_is_nothing() -> None:
    assert pack_documents(np.array([], np.int64), 9) == []


# ---- the stage -------------------------------------------------------------------------------------


def led_pieces(tokens: list[int], longest: int) -> list[tuple[int, ...]]:
    """Return the pieces of a document that an EOT leads."""
    led = [EOT, *tokens]
    return [tuple(led[start : start + longest]) for start in range(0, len(led), longest)]


def test_pack_rows_hold_every_document_whole_or_in_order(store: Store) -> None:
    corpus = make_corpus({"train-00000": 300, "train-00001": 200, "val-00000": 50, "test-00000": 50})
    artifact = pack(store, corpus)
    assert [file.part for file in artifact.manifest.files] == ["train-00000", "train-00001", "val-00000"]
    for part in ("train-00000", "train-00001", "val-00000"):
        rows = rows_of(artifact, part)
        assert all(sum(map(len, row)) <= 17 for row in rows)
        found = Counter(tuple(piece) for row in rows for piece in row)
        expected = Counter(piece for tokens in corpus[part] for piece in led_pieces(tokens, 17))
        assert found == expected
        assert len(rows) == len(slow_best_fit([len(piece) for row in rows for piece in row], 17))


def test_pack_counts_say_what_the_files_hold(store: Store) -> None:
    corpus = make_corpus({"train-00000": 300, "train-00001": 200, "val-00000": 50, "test-00000": 50})
    artifact = pack(store, corpus)
    for split, parts in {"train": ("train-00000", "train-00001"), "val": ("val-00000",)}.items():
        rows = rows_of(artifact, split)
        documents = [tokens for part in parts for tokens in corpus[part]]
        tokens = sum(map(len, documents))
        assert artifact.counts[f"documents.{split}"] == len(documents)
        assert artifact.counts[f"documents_cut.{split}"] == sum(len(tokens) >= 17 for tokens in documents)
        assert artifact.counts[f"sequences.{split}"] == len(rows)
        assert artifact.counts[f"tokens.{split}"] == tokens
        assert artifact.counts[f"padding.{split}"] == 17 * len(rows) - tokens - len(documents)
    for name in ("documents", "documents_cut", "sequences", "tokens", "padding"):
        assert artifact.counts[name] == artifact.counts[f"{name}.train"] + artifact.counts[f"{name}.val"]


def test_pack_result_is_what_training_maps_into_memory(store: Store) -> None:
    artifact = pack(store, make_corpus({"train-00000": 300, "train-00001": 20}))
    sequences = PackedSequences([artifact.open(file) for file in artifact.files(SEQUENCES, prefix="train-")])
    tokens, mask = sequences.rows(np.arange(len(sequences)))
    rows = rows_of(artifact, "train-")
    assert sequences.sequence_length == 16
    for row, pieces in zip(tokens.tolist(), rows, strict=True):
        flat = [token for piece in pieces for token in piece]
        assert row == flat + [EOT] * (17 - len(flat))
    # All but that of a beginning after an end; the first document of a row has none before it.
    flat_rows = [[token for piece in row for token in piece] for row in rows]
    predictions = sum(pair != (EOT, EOT) for row in flat_rows for pair in pairwise(row))
    assert int(mask.sum()) == predictions


def test_pack_two_workers_make_the_same_artifact_as_one(tmp_path: Path) -> None:
    corpus = make_corpus({"train-00000": 200, "train-00001": 100, "val-00000": 50})
    one = pack(Store(str(tmp_path / "one")), corpus, workers=1)
    two = pack(Store(str(tmp_path / "two")), corpus, workers=2)
    assert one.content_digest == two.content_digest


def test_pack_small_windows_lose_no_token(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.formats.token_archive.ROW_GROUP_TOKENS", 100)
    monkeypatch.setattr("tasks.pack.build.WINDOW_TOKENS", 500)
    corpus = make_corpus({"train-00000": 300})
    rows = rows_of(pack(store, corpus), "train-")
    assert Counter(token for row in rows for piece in row for token in piece) == Counter(
        token for tokens in corpus["train-00000"] for token in [EOT, *tokens]
    )


def test_pack_interrupted_keeps_finished_parts(store: Store) -> None:
    corpus = make_corpus({"train-00000": 200, "train-00001": 100})
    first = pack(store, corpus)
    folder = f"artifacts/pack/{first.manifest.key}"
    store.backend.delete(f"{folder}/manifest.json")
    store.backend.delete(f"{folder}/parts/train-00001.json")
    again = pack(store, corpus)
    assert again.content_digest == first.content_digest
    assert again.files(SEQUENCES)[0].path == first.files(SEQUENCES)[0].path
    assert again.files(SEQUENCES)[1].path != first.files(SEQUENCES)[1].path


@pytest.mark.parametrize("val", [{}, {"val-00000": 0}], ids=["no shard", "an empty shard"])
def test_pack_without_validation_documents_warns(
    store: Store, val: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    artifact = pack(store, make_corpus({"train-00000": 100, **val}))
    assert artifact.counts.get("sequences.val", 0) == 0
    assert "no val split" in caplog.text
    assert all(len(PackedSequences([artifact.open(file)])) == 0 for file in artifact.files(SEQUENCES, "val-"))


@pytest.mark.parametrize(("length", "enough"), [(15, False), (16, False), (17, True)])
def test_pack_train_split_shorter_than_a_sequence_is_refused(store: Store, length: int, enough: bool) -> None:
    corpus = {"train-00000": [[*range(1, length), EOT]]}
    if enough:
        assert pack(store, corpus).counts["sequences"] == 2  # with the EOT that leads it there are 18
    else:
        with pytest.raises(InputError, match=f"17 tokens, found {length}"):
            pack(store, corpus)


def test_pack_without_train_shards_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="train shards"):
        pack(store, make_corpus({"val-00000": 100}))


def test_pack_tokens_of_another_tokenizer_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match="run tokenize with this tokenizer"):
        pack(store, make_corpus({"train-00000": 100}), made_with=b"another")


@pytest.mark.parametrize(
    "fields", [{"sequence_length": 7}, {"sequence_length": 1 << 20}, {"row_group_sequences": 1 << 20}]
)
def test_pack_config_impossible_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"row_group_sequences|sequence_length"):
        PackConfig(**fields)


# ---- probe tokens ----------------------------------------------------------------------------------

PROBED = PackConfig(sequence_length=100, row_group_sequences=5, probe_tokens=True)
SENTENCES = {
    "FreeLaw": "The implementation of the regulation is subject to the consideration of the department. ",
    "Enron Emails": "I don't know if you've seen it, but we're late. ",
    "My notes": "Is it in the house or on the hill? Who was there? ",
    "Pile-CC": "The mill stood on the river and was used by the people of the town. ",
}
Texts = dict[str, list[tuple[str, str]]]


def make_texts(documents: int = 80, seed: int = 0) -> Texts:
    """Return texts of a few bytes to several rows, as (collection, text) per part."""
    random = np.random.default_rng(seed)
    lengths = {
        part: random.geometric(1 / 120, documents).tolist() for part in ("train-00000", "train-00001", "val-0")
    }
    return {
        part: [(subset, (SENTENCES[subset] * 50)[:length]) for length in sizes
               for subset in [str(random.choice(list(SENTENCES)))]]
        for part, sizes in lengths.items()
    }  # fmt: skip


def pack_texts(
    store: Store, texts: Texts, config: PackConfig = PROBED, special: tuple[str, ...] = (EOT_NAME, TONE, FIELD)
) -> Artifact:
    """Pack texts with a tokenizer whose tokens are the special ones and the bytes."""
    encoder = untrained_tokenizer("gpt4")
    encoder.train_from_iterator([], bpe_trainer(TrainTokenizerConfig(vocab_size=300), list(special)))
    writer = ArtifactWriter(store, "train-tokenizer", "1" * 16)
    encoder.save(str(writer.scratch() / "tokenizer.json"))
    part = writer.commit("tokenizer", {TOKENIZER: writer.scratch() / "tokenizer.json"})
    tokenizer = publish(writer, [part])
    writer, parts = ArtifactWriter(store, "tokenize", "1" * 16), []
    for name, documents in texts.items():
        path = writer.scratch() / f"{name}.parquet"
        token_format = TokenFormat(encoder.get_vocab_size(), EOT, part.files[0].sha256)
        with TokenArchiveWriter(path, token_format) as archive:
            for number, (subset, text) in enumerate(documents):
                archive.write(f"{name}:{number}", subset, len(text), encoder.encode(text).ids)
        parts.append(writer.commit(name, {TOKENS: path}))
    inputs = {"tokens": publish(writer, parts), "tokenizer": tokenizer}
    return run_stage(STAGE, config, inputs, RunContext(store, "run", {}, Execution(workers=1))).artifact


def byte_tokens(text: str) -> list[int]:
    """Return the tokens of ASCII text: special ids, then printable characters in their order."""
    control = {" ": 256 - 68 + 32}  # the 33rd of the bytes without a printable form, which come after the others
    return [3 + control.get(char, ord(char) - 33) for char in text] + [EOT]


def expected_pieces(texts: list[tuple[str, str]], longest: int = 98) -> Counter[tuple[int, ...]]:
    pieces: Counter[tuple[int, ...]] = Counter()
    for _, text in texts:
        for piece in led_pieces(byte_tokens(text), longest):
            pieces[piece + (1, 2) * (len(piece) >= 64)] += 1
    return pieces


def test_pack_with_probes_puts_them_behind_every_long_piece(store: Store) -> None:
    texts = make_texts()
    artifact = pack_texts(store, texts)
    for split in ("train", "val"):
        rows = rows_of(artifact, split)
        expected = expected_pieces([text for part in texts if part.startswith(split) for text in texts[part]])
        assert Counter(tuple(piece) for row in rows for piece in row) == expected
        assert max(sum(map(len, row)) for row in rows) == 100  # the last of 101 tokens is only a target
        pairs = sum(piece.count(1) for piece in expected.elements())
        stored = 101 * len(rows)
        documents = artifact.counts[f"documents.{split}"]
        added = 2 * pairs + documents
        assert artifact.counts[f"tokens.{split}"] == sum(map(len, expected.elements())) - added
        assert artifact.counts[f"padding.{split}"] == stored - artifact.counts[f"tokens.{split}"] - added


def test_pack_labels_are_those_of_each_documents_text_and_collection(store: Store) -> None:
    texts = {"train-00000": make_texts()["train-00000"]}
    config = PackConfig(**{**dict(PROBED), "field_map": {"My notes": "philosophy", "Enron Emails": None}})
    artifact = pack_texts(store, texts, config)
    fields = {"FreeLaw": FIELDS.index("law"), "My notes": FIELDS.index("philosophy")}
    wanted: Counter[tuple[tuple[int, ...], int, int]] = Counter()
    for subset, text in texts["train-00000"]:
        tone = tone_label(text[:1000])
        for piece in expected_pieces([(subset, text)]).elements():
            if piece[-1] == 2:
                wanted[piece, NO_LABEL if tone is None else tone, fields.get(subset, NO_LABEL)] += 1
    sequences = PackedSequences([artifact.open(file) for file in artifact.files(SEQUENCES)])
    indices = np.arange(len(sequences))
    tokens, _ = sequences.rows(indices)
    labels = sequences.probe_labels(indices, tokens)
    assert sequences.format.probes == Probes(1, 2)
    found: Counter[tuple[tuple[int, ...], int, int]] = Counter()
    for row, row_labels, pieces in zip(tokens, labels.tolist(), rows_of(artifact, "train"), strict=True):
        end = 0
        for piece in pieces:
            end += len(piece)
            if row[end - 1] == 2:
                found[tuple(piece), row_labels[end - 2], row_labels[end - 1]] += 1
                row_labels[end - 2 : end] = [NO_LABEL, NO_LABEL]
        assert set(row_labels) == {NO_LABEL}
    assert found == wanted
    assert len({tone for _, tone, _ in wanted}) >= 4
    for place, kind, classes in ((1, "tone", TONES), (2, "field", FIELDS)):
        numbers = Counter[int]()
        for key, count in wanted.items():
            numbers[int(key[place])] += count  # type: ignore[call-overload]
        names = {f"{kind}.{'unlabelled' if n == NO_LABEL else classes[n]}": count for n, count in numbers.items()}
        assert {
            name: n for name, n in artifact.counts.items() if name.startswith(kind) and "train" not in name
        } == names
        table = json.loads(artifact.report(TABLES) or b"")["Labels at probe tokens"]
        assert {
            row["label"]: row["train"] for row in table if row["label"].startswith(kind) and row["train"]
        } == names


def test_pack_with_probes_in_small_windows_labels_the_same_documents(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"train-00000": make_texts()["train-00000"]}
    whole = pack_texts(store, texts)
    monkeypatch.setattr("storage.formats.token_archive.ROW_GROUP_TOKENS", 300)
    monkeypatch.setattr("tasks.pack.build.WINDOW_TOKENS", 1000)
    changed = {"train-00000": [*texts["train-00000"], ("FreeLaw", "short")]}
    pieces = pack_texts(store, changed)
    for name, count in whole.counts.items():
        if name.startswith(("tone", "field")):
            assert pieces.counts[name] == count


def test_pack_with_probes_but_no_label_warns_of_each_kind(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    pack_texts(store, {"train-00000": [("Prose", "Әни өйдә җырлый. " * 30), ("Law", SENTENCES["Pile-CC"])]})
    assert "no document of the train split has a tone label" in caplog.text
    assert "no document of the train split has a field label" in caplog.text


def test_pack_with_labels_does_not_warn(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    pack_texts(store, make_texts())
    assert "label" not in caplog.text


def test_pack_probes_of_a_tokenizer_without_them_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"needs a tokenizer with <\|tone\|> and <\|field\|>"):
        pack_texts(store, make_texts(5), special=(EOT_NAME, TONE, "<|other|>"))


def test_pack_config_probes_need_room_and_the_field_map_needs_probes() -> None:
    assert PackConfig(sequence_length=66, probe_tokens=True).longest_piece == 64
    with pytest.raises(ValidationError, match="at least 66 with probe_tokens, found 65"):
        PackConfig(sequence_length=65, probe_tokens=True)
    with pytest.raises(ValidationError, match="needs probe_tokens"):
        PackConfig(field_map={"a": "law"})
    with pytest.raises(ValidationError, match="field_map"):
        PackConfig(probe_tokens=True, field_map={"a": "laws"})  # type: ignore[dict-item]
