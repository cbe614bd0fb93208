"""The token archive: documents in, the same documents out, impossible tokens refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from storage.errors import CorruptFileError, InputError
from storage.formats.token_archive import TokenArchive, TokenArchiveWriter
from storage.formats.tokens import TokenFormat

EOT = 0
SHA = "ab" * 32
NARROW, WIDE = TokenFormat(65536, EOT, SHA), TokenFormat(65537, EOT, SHA)
FORMATS = pytest.mark.parametrize("token_format", [NARROW, WIDE], ids=["uint16", "int32"])
HIGHEST = {65536: 65535, 65537: 65536}


def document(*ids: int) -> NDArray[np.int64]:
    return np.array([*ids, EOT], np.int64)


@FORMATS
def test_archive_gives_back_documents_in_order(
    tmp_path: Path, token_format: TokenFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.formats.token_archive.ROW_GROUP_TOKENS", 10)
    random = np.random.default_rng(1)
    highest = HIGHEST[token_format.vocab_size]
    texts = [random.integers(1, highest + 1, size).tolist() for size in (0, 3, 30, 1, 0, 12)]
    texts[1][0] = highest
    with TokenArchiveWriter(tmp_path / "a.parquet", token_format) as writer:
        written = [writer.write(f"id-{n}", f"subset-{n % 2}", 5 * n, ids) for n, ids in enumerate(texts)]
    assert written == [len(ids) + 1 for ids in texts]
    assert (writer.documents, writer.tokens) == (6, sum(written))
    archive = TokenArchive(tmp_path / "a.parquet")
    groups = list(archive.row_groups())
    assert archive.format == token_format
    assert len(groups) > 1
    assert np.concatenate([lengths for lengths, _ in groups]).tolist() == written
    assert np.concatenate([tokens for _, tokens in groups]).tolist() == [
        token for ids in texts for token in [*ids, EOT]
    ]
    assert {tokens.dtype for _, tokens in groups} == {token_format.dtype}
    table = pq.read_table(tmp_path / "a.parquet")  # what any other tool sees
    assert table.column_names == ["id", "subset", "meta", "n_bytes", "tokens"]
    assert table.column("tokens").to_pylist() == [[*ids, EOT] for ids in texts]
    assert table.column("id").to_pylist() == [f"id-{n}" for n in range(6)]
    assert table.column("n_bytes").to_pylist() == [5 * n for n in range(6)]
    assert table.schema.field("tokens").type.value_type == pa.from_numpy_dtype(token_format.dtype)


def test_archive_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with TokenArchiveWriter(tmp_path / name, NARROW) as writer:
            for number in range(100):
                writer.write(f"{number}", "subset", 7, list(range(1, number + 2)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_archive_names_the_subset_of_each_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "storage.formats.token_archive.ROW_GROUP_TOKENS", 3
    )  # each row group has a dictionary of its own
    wanted = ["web", "books", "web", "law", "books", "web"]
    with TokenArchiveWriter(tmp_path / "a", TokenFormat(100, 0, SHA)) as writer:
        for number, subset in enumerate(wanted):
            writer.write(str(number), subset, 2, [1, 2])
    names, places = TokenArchive(tmp_path / "a").subsets()
    assert [names[place] for place in places] == wanted
    assert sorted(names) == ["books", "law", "web"]
    with TokenArchiveWriter(tmp_path / "empty", TokenFormat(100, 0, SHA)):
        pass
    names, places = TokenArchive(tmp_path / "empty").subsets()
    assert (names, places.tolist()) == ([], [])


def test_archive_without_documents_is_empty(tmp_path: Path) -> None:
    with TokenArchiveWriter(tmp_path / "a", NARROW):
        pass
    assert list(TokenArchive(tmp_path / "a").row_groups()) == []


@pytest.mark.parametrize("ids", [[5, 65536], [-1], [4, EOT, 4]], ids=["too large", "negative", "end of text"])
def test_archive_id_that_may_not_be_there_is_refused_not_wrapped(tmp_path: Path, ids: list[int]) -> None:
    with TokenArchiveWriter(tmp_path / "a", NARROW) as writer, pytest.raises(InputError, match="'here'"):
        writer.write("here", "subset", 1, ids)


@pytest.mark.parametrize(
    "tokens", [[[3, 4]], [[3, EOT, 4, EOT]], [[3, EOT], []]], ids=["no end", "two ends", "empty"]
)
def test_archive_whose_documents_do_not_end_with_eot_is_refused(tmp_path: Path, tokens: list[list[int]]) -> None:
    with TokenArchiveWriter(tmp_path / "good", NARROW) as writer:
        writer.write("id", "subset", 1, [1])
    schema = pq.read_schema(tmp_path / "good")
    count = len(tokens)
    table = pa.table([["id"] * count, ["subset"] * count, ["{}"] * count, [1] * count, tokens], schema=schema)
    pq.write_table(table, tmp_path / "bad")
    with pytest.raises(CorruptFileError, match="EOT"):
        list(TokenArchive(tmp_path / "bad").row_groups())


# ---- packed sequences ------------------------------------------------------------------------------
