"""What is no document: how much of it a download bears, and that none of it is lost."""

import base64
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError
from storage.sources.readers.base import MAX_RECORD_BYTES, BadLine, bad_line
from tasks.download.quarantine import allowed_bad_lines, as_json
from tests.unit.tasks.downloads import contents, documents, download

GOOD, BROKEN, NOT_UTF8 = b'{"text": "good"}\n', b'{"text": "broken\n', b'{"text": "\xff"}\n'
NO_HELD_OUT = {"val_fraction": 0.0, "test_fraction": 0.0}


def quarantine(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifact.report("quarantine.jsonl") or b"").splitlines()]


def raw(entry: dict[str, Any]) -> bytes:
    if "record" in entry:
        return str(entry["record"]).encode()
    return base64.b64decode(entry["record_base64"])


def test_too_many_bad_lines_fail_the_stage_and_a_higher_limit_continues_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 50 + BROKEN + GOOD * 49 + NOT_UTF8)
    config: dict[str, Any] = {"patterns": (str(path),), "shard_bytes": 300, **NO_HELD_OUT}
    with pytest.raises(InputError, match=r"a.jsonl must hold a document in line 51 .*not JSON") as caught:
        download(tmp_path / "store", **config)
    assert "of 101 records 2 hold none (2 %), and 1 may" in str(caught.value)
    [share] = re.findall(r"set download.max_bad_share=(\S+) to", str(caught.value))
    place = Path(str(caught.value).rpartition(" ")[2])
    left = [json.loads(line) for line in place.read_bytes().splitlines()]

    artifact = download(tmp_path / "store", max_bad_share=float(share), **config)
    assert {part.attempt for part in artifact_parts(tmp_path, artifact)} == {artifact.manifest.attempts[0]}
    assert artifact.manifest.attempts[0] != artifact.manifest.attempts[-1]
    assert [document.id for document in documents(artifact)] == [
        f"a.jsonl:{line}" for line in range(1, 101) if line != 51
    ]
    assert artifact.counts["bad_lines"] == 2
    assert quarantine(artifact) == left
    assert [{**entry, "reason": ""} for entry in left] == [
        {
            "file": "a.jsonl",
            "line": 51,
            "offset": 50 * len(GOOD),
            "reason": "",
            "record_bytes": len(BROKEN) - 1,
            "record": '{"text": "broken',
        },
        {
            "file": "a.jsonl",
            "line": 101,
            "offset": 99 * len(GOOD) + len(BROKEN),
            "reason": "",
            "record_bytes": len(NOT_UTF8) - 1,
            "record_base64": base64.b64encode(NOT_UTF8[:-1]).decode(),
        },
    ]
    undisturbed = download(tmp_path / "other", workers=2, max_bad_lines=2, **config)
    assert contents(undisturbed) == contents(artifact)
    assert undisturbed.content_digest == artifact.content_digest
    assert quarantine(undisturbed) == left


def artifact_parts(folder: Path, artifact: Artifact) -> list[Any]:
    return list(ArtifactWriter(Store(str(folder / "store")), "download", artifact.manifest.key).parts().values())


def test_bad_lines_are_no_part_of_the_content(tmp_path: Path) -> None:
    for name, line in (("one", BROKEN), ("two", NOT_UTF8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(GOOD + line)
    one, two = (
        download(tmp_path / "store", patterns=(f"{tmp_path}/{name}/a.jsonl",), **NO_HELD_OUT)
        for name in ("one", "two")
    )
    assert one.manifest.key != two.manifest.key
    assert one.content_digest == two.content_digest
    assert {file.role for file in one.manifest.files} == {"documents"}
    assert quarantine(one) != quarantine(two)


def test_table_shows_bad_lines_by_file_and_kind_of_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BROKEN + GOOD + b'{"text": "x\n' + NOT_UTF8)
    (tmp_path / "b.jsonl").write_bytes(GOOD * 3 + BROKEN)
    artifact = download(tmp_path / "store", patterns=(f"{tmp_path}/*.jsonl",), max_bad_lines=4)
    assert json.loads(artifact.report("tables.json") or b"")["Bad lines"] == [
        {"file": "a.jsonl", "reason": "not JSON", "bad lines": 2, "first line": 1},
        {"file": "a.jsonl", "reason": "not UTF-8", "bad lines": 1, "first line": 4},
        {"file": "b.jsonl", "reason": "not JSON", "bad lines": 1, "first line": 4},
    ]


def test_one_bad_line_in_a_small_corpus_is_left_out_and_two_are_too_many(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(GOOD * 20 + NOT_UTF8 + GOOD * 20)
    assert download(tmp_path / "store", patterns=(f"{tmp_path}/a.jsonl",)).counts["bad_lines"] == 1
    config: dict[str, Any] = {"patterns": (f"{tmp_path}/*.jsonl",), "shard_bytes": 300}
    with pytest.raises(
        InputError,
        match=r"a.jsonl must hold a document in line 21 .*not UTF-8.*\(also .*b.jsonl line 21.*2 hold none",
    ):
        download(tmp_path / "store", **config)
    with pytest.raises(InputError, match=r"and 0 may"):
        download(tmp_path / "none", patterns=(f"{tmp_path}/a.jsonl",), max_bad_lines=0)
    assert download(tmp_path / "store", max_bad_share=0.025, **config).counts["bad_lines"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_default_share_of_bad_lines_is_one_in_ten_thousand(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD * 9_999 + BROKEN)
    (tmp_path / "b.jsonl").write_bytes(GOOD * 9_999 + BROKEN)
    config: dict[str, Any] = {"patterns": (f"{tmp_path}/*.jsonl",), "shard_bytes": 50_000}
    artifact = download(tmp_path / "store", workers=workers, **config)
    assert artifact.counts["bad_lines"] == 2
    (tmp_path / "b.jsonl").write_bytes(GOOD * 9_998 + BROKEN)  # 2 of 19,999
    with pytest.raises(InputError, match=r"and 1 may"):
        download(tmp_path / "store", workers=workers, **config)


@given(share=st.floats(0, 1), records=st.integers(0, 10**12), lines=st.integers(0, 10**6))
def test_allowed_bad_lines_are_the_larger_of_number_and_exact_share(
    share: float, records: int, lines: int
) -> None:
    allowed = allowed_bad_lines(lines, share, records)
    assert allowed >= lines
    assert allowed == lines or allowed <= Fraction(str(share)) * records < allowed + 1
    assert allowed_bad_lines(0, 0.0001, 30_000) == 3


def test_blank_and_empty_records_are_not_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + b'\n \n{"text": ""}\n' * 20)
    artifact = download(tmp_path / "store", patterns=(f"{tmp_path}/a.jsonl",), max_bad_lines=0)
    assert "bad_lines" not in artifact.counts
    assert artifact.counts["dropped.unlabelled.empty"] == 20
    assert artifact.report("quarantine.jsonl") is None


@pytest.mark.parametrize(("bad", "fails_at_once"), [(999, False), (1000, True)])
def test_file_that_begins_with_a_thousand_bad_records_fails_before_the_work(
    tmp_path: Path, bad: int, fails_at_once: bool
) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD * 2000)
    (tmp_path / "b.jsonl").write_bytes(b'{"words": "x"}\n' * bad + GOOD * 100)
    config: dict[str, Any] = {"patterns": (f"{tmp_path}/*.jsonl",)}
    if fails_at_once:
        with pytest.raises(
            InputError, match=r"b.jsonl must hold documents, but its first 1000 .*line 1: none of the fields"
        ):
            download(tmp_path / "store", max_bad_share=0.9, **config)
        assert not list((tmp_path / "store").rglob("*.zst"))
    else:
        assert download(tmp_path / "store", max_bad_share=0.9, **config).counts["bad_lines"] == bad
    assert download(tmp_path / "store", max_bad_share=1.0, **config).counts["bad_lines"] == bad


def test_many_bad_lines_are_all_kept_in_order(tmp_path: Path) -> None:
    bad = [f'{{"text": {number}}}' for number in range(3000)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(line.encode() + b"\n" + GOOD for line in bad))
    config: dict[str, Any] = {"patterns": (f"{tmp_path}/a.jsonl",), "max_bad_share": 0.5, "shard_bytes": 9000}
    one, two = download(tmp_path / "one", **config), download(tmp_path / "two", workers=2, **config)
    assert [entry["record"] for entry in quarantine(one)] == bad
    assert one.report("quarantine.jsonl") == two.report("quarantine.jsonl")


@given(data=st.binary(max_size=50), tail=st.sampled_from(["", "т", "🙂"]), cut=st.integers(0, 3))
def test_quarantined_record_is_the_one_that_stood_there(data: bytes, tail: str, cut: int) -> None:
    whole = data + tail.encode()
    line = bad_line("a", 1, 0, "not JSON: x", whole)
    assert raw(as_json(line)) == whole
    assert as_json(line)["record_bytes"] == len(whole)
    # A record that was cut, perhaps inside a character: its beginning is kept, and its length is said.
    kept = whole[: len(whole) - cut]
    shortened = as_json(BadLine("a", 1, 0, "not JSON: x", kept, len(whole)))
    assert kept.startswith(raw(shortened))
    assert len(kept) - len(raw(shortened)) < 4
    assert shortened["record_bytes"] == len(whole)


def test_very_long_record_is_kept_to_a_mebibyte(tmp_path: Path) -> None:
    line = b'{"text": ' + b"x" * (3 << 20)
    (tmp_path / "a.jsonl").write_bytes(GOOD + line)
    [entry] = quarantine(download(tmp_path / "store", patterns=(f"{tmp_path}/a.jsonl",)))
    assert raw(entry) == line[:MAX_RECORD_BYTES]
    assert entry["record_bytes"] == len(line)


@pytest.mark.parametrize("max_bad_lines", [0, 1])
def test_bad_line_names_its_file_among_those_of_equal_name(tmp_path: Path, max_bad_lines: int) -> None:
    for name, data in (("one", GOOD), ("two", BROKEN * 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=f"^{tmp_path}/two/a.jsonl must hold a document in line 1 "):
        download(tmp_path / "store", patterns=(f"{tmp_path}/*/a.jsonl",), max_bad_lines=max_bad_lines)
