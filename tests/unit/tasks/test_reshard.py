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
from storage.errors import Fault
from storage.formats.documents import Document, read_documents
from storage.sources.checked_files import SourceFile, file_digest, file_status
from storage.sources.registry import make_source, source_config
from tasks.download.plan import plan_groups
from tasks.download.quarantine import Quarantine
from tasks.download.reshard import WriteShards, split_by_hash

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
    finished: frozenset[str] = frozenset(),
) -> dict[str, Part]:
    writer = ArtifactWriter(Store(str(folder)), "download", "key")
    shares = {f"{split}_fraction": 0.2 if split in hold_out else 0.0 for split in ("val", "test")}
    config = source_config("files", patterns=(f"{sources[0].path.parent}/*",), **shares)
    work = WriteShards(writer, make_source(config))
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


def test_bad_lines_of_finished_shards_are_not_lost(tmp_path: Path) -> None:
    [source] = write_sources(tmp_path / "sources", [[f"text {number}" for number in range(200)]])
    content = source.path.read_text().splitlines()
    for number in (10, 150, 151):
        content[number] = content[number][:-1]
    source.path.write_text("\n".join(content) + "\n")
    sources = [checked(source.path)]
    whole = reshard(tmp_path / "store", sources, 500)
    keep = frozenset(list(whole)[:4])
    for name in whole.keys() - keep:
        ArtifactWriter(Store(str(tmp_path / "store")), "download", "key").discard(name)
    again = reshard(tmp_path / "store", sources, 500, finished=keep)
    assert {name: part.attempt == whole[name].attempt for name, part in again.items()} == {
        name: name in keep for name in whole
    }
    assert [[file.sha256 for file in part.files] for part in again.values()] == [
        [file.sha256 for file in part.files] for part in whole.values()
    ]
    quarantine = Quarantine(
        ArtifactWriter(Store(str(tmp_path / "store")), "download", "key"), [again[name] for name in sorted(again)]
    )
    assert [json.loads(entry)["line"] for entry in quarantine.entries()] == [11, 151, 152]
    assert (quarantine.lines, quarantine.records) == (3, 200)


def test_source_that_changes_while_it_is_read_is_a_fault(tmp_path: Path) -> None:
    [source] = write_sources(tmp_path / "sources", [["one", "two"]])
    source.path.write_text('{"text": "three"}\n')
    with pytest.raises(Fault, match="must not change"):
        reshard(tmp_path / "store", [source], 500)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["train-00000.jsonl.zst", "train-00000-quarantine.jsonl.zst"])
def test_full_disk_comes_through(tmp_path: Path, name: str) -> None:
    [source] = write_sources(tmp_path / "sources", [["one", "two"]])
    source.path.write_text(source.path.read_text() + "broken")
    sources = [checked(source.path)]
    writer = ArtifactWriter(Store(str(tmp_path / "store")), "download", "key")
    (writer.scratch() / name).symlink_to("/dev/full")
    [group] = plan_groups({"train": sources}, 500)
    with pytest.raises(OSError, match="No space left"):
        WriteShards(writer, make_source(source_config("files", patterns=(f"{tmp_path}/sources/*",))))(group)
    assert not writer.parts()


def test_split_by_hash_takes_about_the_stated_shares_and_is_a_function_of_the_text() -> None:
    splits = [split_by_hash(f"text {number}", 0.1, 0.05) for number in range(20_000)]
    # Five standard deviations of a binomial count.
    assert abs(splits.count("val") - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(splits.count("test") - 1000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5
    assert all(first == second for first, second in pairwise([split_by_hash("same", 0.5, 0.4)] * 3))
    assert {split_by_hash(str(number), 0, 0) for number in range(100)} == {"train"}
