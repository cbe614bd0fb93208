import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts.records import Part
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import Fault, InputError
from storage.formats.documents import Document, read_documents
from storage.sources.checked_files import SourceFile, file_digest, file_status
from storage.sources.registry import make_source, source_config
from tasks.download.reshard import WriteShards, plan_groups, split_by_hash

Files = list[list[str]]


def write_sources(folder: Path, files: Files) -> list[SourceFile]:
    folder.mkdir(parents=True)
    for number, texts in enumerate(files):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{number:03d}.jsonl").write_text("".join(lines))
    return [checked(path) for path in sorted(folder.iterdir())]


def checked(path: Path) -> SourceFile:
    return SourceFile(path.name, file_digest(path), path, file_status(path), path.stat().st_size)


def reshard(
    folder: Path,
    sources: list[SourceFile],
    shard_bytes: int,
    *,
    hold_out: tuple[str, ...] = (),
    max_bad_lines: int = 0,
    finished: frozenset[str] = frozenset(),
) -> dict[str, Part]:
    writer = ArtifactWriter(Store(str(folder)), "download", "key")
    shares = {f"{split}_fraction": 0.2 if split in hold_out else 0.0 for split in ("val", "test")}
    config = source_config("files", patterns=(f"{sources[0].path.parent}/*",), **shares)
    work = WriteShards(writer, make_source(config), max_bad_lines)
    for group in plan_groups({"train": sources}, shard_bytes, hold_out=hold_out):
        work(replace(group, finished=finished))
    return writer.parts()


def documents_of(folder: Path, part: Part) -> list[Document]:
    writer = ArtifactWriter(Store(str(folder)), "download", "key")
    return [document for file in part.files for document in read_documents(writer.open(file))]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.lists(st.lists(texts, max_size=30), min_size=1, max_size=6),
    shard_bytes=st.integers(50, 3000),
    hold_out=st.sampled_from([(), ("val",), ("val", "test")]),
)
def test_every_document_stands_once_in_order_in_even_shards(
    tmp_path_factory: pytest.TempPathFactory, files: Files, shard_bytes: int, hold_out: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("reshard")
    sources = write_sources(folder / "sources", files)
    parts = reshard(folder / "store", sources, shard_bytes, hold_out=hold_out)
    expected = [
        (f"{number:03d}.jsonl:{line}", text)
        for number, content in enumerate(files)
        for line, text in enumerate(content, start=1)
    ]
    kept = [(name, text) for name, text in expected if text.strip()]
    found: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for name, part in sorted(parts.items()):
        documents = documents_of(folder / "store", part)
        assert bool(part.files) == bool(documents)
        assert part.counts.get("documents", 0) == len(documents) == part.counts.get("documents.unlabelled", 0)
        assert part.counts.get("text_bytes", 0) == sum(len(document.text.encode()) for document in documents)
        found[name.partition("-")[0]] += [(document.id, document.text) for document in documents]
    for split, content in found.items():
        wanted = [item for item in kept if _split(item[1], hold_out) == split]
        assert content == wanted
    dropped = sum(part.counts.get("dropped.unlabelled.empty", 0) for part in parts.values())
    assert dropped == len(expected) - len(kept)
    _check_even(folder, sources, shard_bytes, {name: part for name, part in parts.items() if not hold_out})


def _split(text: str, hold_out: tuple[str, ...]) -> str:
    place = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
    test = 0.2 if "test" in hold_out else 0.0
    val = 0.2 if "val" in hold_out else 0.0
    return "test" if place < test else "val" if place < test + val else "train"


def _check_even(folder: Path, sources: list[SourceFile], shard_bytes: int, parts: dict[str, Part]) -> None:
    lines = {
        f"{source.name}:{number}": len(line) + 1
        for source in sources
        for number, line in enumerate(source.path.read_bytes().splitlines(), start=1)
    }
    longest = max(lines.values(), default=0)
    for group in plan_groups({"train": sources}, shard_bytes):
        total = sum(source.text_bytes for source in group.sources)
        assert len(group.shards) == max(1, round(total / shard_bytes))
        for name in group.shards:
            if name in parts:
                size = sum(lines[document.id] for document in documents_of(folder / "store", parts[name]))
                assert size <= total / len(group.shards) + longest


@given(sizes=st.lists(st.integers(0, 500), min_size=1, max_size=40), shard_bytes=st.integers(1, 2000))
def test_plan_keeps_the_order_of_files_and_numbers_the_parts(sizes: list[int], shard_bytes: int) -> None:
    files = [SourceFile(str(number), "", Path("x"), (0, 0), size) for number, size in enumerate(sizes)]
    groups = plan_groups({"train": files, "val": files[:1]}, shard_bytes)
    train = [group for group in groups if group.shards[0].startswith("train")]
    assert [file for group in train for file in group.sources] == files
    names = [name for group in train for name in group.shards]
    assert names == [f"train-{number:05d}" for number in range(len(names))]
    assert groups[-1].sources == (files[0],)
    assert groups[-1].shards[0] == "val-00000"


def test_plan_divides_small_files_evenly() -> None:
    files = [SourceFile(str(number), "", Path("x"), (0, 0), 10) for number in range(16)]
    assert [len(group.sources) for group in plan_groups({"train": files}, 100)] == [8, 8]
    assert [len(group.shards) for group in plan_groups({"train": files}, 2)] == [5] * 16


def test_finished_shards_are_not_written_again(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources", [[f"text {number}" for number in range(200)]])
    before = reshard(tmp_path / "store", sources, 500, hold_out=("val", "test"))
    assert len(before) > 6
    keep = frozenset(list(before)[::2])
    for name in before.keys() - keep:
        ArtifactWriter(Store(str(tmp_path / "store")), "download", "key").discard(name)
    after = reshard(tmp_path / "store", sources, 500, hold_out=("val", "test"), finished=keep)
    assert after.keys() == before.keys()
    for name, part in after.items():
        assert (part.attempt == before[name].attempt) == (name in keep)
        assert [file.sha256 for file in part.files] == [file.sha256 for file in before[name].files]
        assert part.counts == before[name].counts


def test_too_many_bad_lines_leave_the_shards_before_them(tmp_path: Path) -> None:
    [source] = write_sources(tmp_path / "sources", [[f"text {number}" for number in range(200)]])
    content = source.path.read_text().splitlines()
    content[150] = content[150][:-1]
    source.path.write_text("\n".join(content) + "\n")
    sources = [checked(source.path)]
    with pytest.raises(InputError, match=r"000.jsonl must hold a document in line 151 .*not JSON"):
        reshard(tmp_path / "store", sources, 500)
    before = ArtifactWriter(Store(str(tmp_path / "store")), "download", "key").parts()
    assert 0 < len(before) < 8
    after = reshard(tmp_path / "store", sources, 500, max_bad_lines=1, finished=frozenset(before))
    whole = reshard(tmp_path / "other", sources, 500, max_bad_lines=1)
    assert {name: part.attempt for name, part in after.items() if name in before} == {
        name: part.attempt for name, part in before.items()
    }
    assert [[file.sha256 for file in after[name].files] for name in whole] == [
        [file.sha256 for file in part.files] for part in whole.values()
    ]
    assert sum(part.counts.get("bad_lines", 0) for part in after.values()) == 1


def test_source_that_changes_while_it_is_read_is_a_fault(tmp_path: Path) -> None:
    [source] = write_sources(tmp_path / "sources", [["one", "two"]])
    source.path.write_text('{"text": "three"}\n')
    with pytest.raises(Fault, match="must not change"):
        reshard(tmp_path / "store", [source], 500)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_comes_through(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources", [["one", "two"]])
    writer = ArtifactWriter(Store(str(tmp_path / "store")), "download", "key")
    (writer.scratch() / "train-00000.jsonl.zst").symlink_to("/dev/full")
    [group] = plan_groups({"train": sources}, 500)
    with pytest.raises(OSError, match="No space left"):
        WriteShards(writer, make_source(source_config("files", patterns=(f"{tmp_path}/sources/*",))), 0)(group)
    assert not writer.parts()


def test_split_by_hash_takes_about_the_stated_shares_and_is_a_function_of_the_text() -> None:
    splits = [split_by_hash(f"text {number}", 0.1, 0.05) for number in range(20_000)]
    # Five standard deviations of a binomial count.
    assert abs(splits.count("val") - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(splits.count("test") - 1000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5
    assert all(first == second for first, second in pairwise([split_by_hash("same", 0.5, 0.4)] * 3))
    assert {split_by_hash(str(number), 0, 0) for number in range(100)} == {"train"}
