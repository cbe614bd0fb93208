import hashlib
import json
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.artifacts.records import (
    InputRef,
    LeaseRecord,
    Manifest,
    Part,
    Pin,
    Record,
    Run,
    RunStage,
    StoredFile,
    content_digest,
    decode_record,
    encode_record,
)
from storage.canonical import canonical_json
from storage.errors import CorruptRecordError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)
PATHS = st.lists(st.from_regex(r"[a-zж. -]{1,5}[a-z]", fullmatch=True), min_size=1, max_size=3).map("/".join)
COUNTS = st.dictionaries(TEXT, st.integers(), max_size=3)
FILES = st.builds(StoredFile, part=TEXT, role=PATHS, path=PATHS, bytes=st.integers(0), sha256=TEXT)
FILE_TUPLES = st.lists(FILES, max_size=3).map(tuple)
PARTS = st.builds(Part, part=TEXT, attempt=TEXT, files=FILE_TUPLES, counts=COUNTS, info=JSON)
MANIFESTS = st.builds(
    Manifest,
    stage=TEXT, version=st.integers(), key=TEXT, content_digest=TEXT, config=JSON,
    inputs=st.dictionaries(TEXT, st.builds(InputRef, stage=TEXT, key=TEXT, content_digest=TEXT), max_size=2),
    sources=st.dictionaries(TEXT, TEXT, max_size=2), files=FILE_TUPLES, reports=FILE_TUPLES, counts=COUNTS,
    recipe=JSON, run_id=TEXT, code_commit=TEXT, libraries=st.dictionaries(TEXT, TEXT, max_size=2),
    attempts=st.lists(TEXT, max_size=2).map(tuple), started=TEXT, finished=TEXT, seconds=NUMBERS,
)  # fmt: skip
RUN_STAGES = st.builds(
    RunStage, stage=TEXT, key=TEXT, state=st.sampled_from(["running", "cached", "done", "failed"]),
    seconds=NUMBERS, content_digest=TEXT,
)  # fmt: skip
RUNS = st.builds(
    Run, run_id=TEXT, recipe_name=TEXT, recipe=JSON, target=TEXT,
    state=st.sampled_from(["running", "done", "failed"]),
    stages=st.lists(RUN_STAGES, max_size=3).map(tuple), host=TEXT, started=TEXT, finished=TEXT, error=TEXT,
)  # fmt: skip
PINS = st.builds(Pin, name=TEXT, stage=TEXT, key=TEXT, created=TEXT)
LEASES = st.builds(
    LeaseRecord, holder=TEXT, run_id=TEXT, host=TEXT, process_id=st.integers(), process_start=TEXT,
    renewals=st.integers(), expires=NUMBERS,
)  # fmt: skip

FILE = StoredFile(part="train-00000", role="documents", path="data/a.zst", bytes=5, sha256="0f")
PART = Part(
    part="train-00000", attempt="abc", files=(FILE,), counts={"documents": 3}, info={"loss": 0.5, "é": [1]}
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(PARTS | MANIFESTS | RUNS | PINS | LEASES)
def test_record_is_read_back_as_it_was_written(record: Record) -> None:
    data = encode_record(record)
    assert decode_record(type(record), data, "place") == record
    assert encode_record(decode_record(type(record), data, "place")) == data


@pytest.mark.parametrize("mask", [1, 2, 4, 8, 16, 32, 64, 128, 0x5A, 255])
def test_record_with_any_byte_changed_is_damaged(mask: int) -> None:
    data = encode_record(PART)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= mask
        with pytest.raises(CorruptRecordError, match="here"):
            decode_record(Part, bytes(flipped), "here")


def test_record_that_is_cut_short_or_longer_is_damaged() -> None:
    data = encode_record(PART)
    for changed in [
        *(data[:length] for length in range(len(data))),
        data + b"\n",
        b" " + data,
        b"\xef\xbb\xbf" + data,
    ]:
        with pytest.raises(CorruptRecordError):
            decode_record(Part, changed, "here")


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b'"part"', b"\xff\xfe", b"[" * 100_000], ids=lambda d: repr(d[:9])
)
def test_record_that_is_something_else_is_damaged(data: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="here"):
        decode_record(Part, data, "here")


def test_record_of_another_kind_is_damaged() -> None:
    with pytest.raises(CorruptRecordError, match=r"must be a manifest record.*'part'"):
        decode_record(Manifest, encode_record(PART), "here")


class Fruit(Record):
    """A record whose second version renamed a field and whose third added one."""

    kind = "fruit"
    schema_version = 3
    upgrades: ClassVar[dict[int, Any]] = {
        1: lambda body: {"name": body["title"]},
        2: lambda body: {**body, "seeds": 0},
    }

    name: str
    seeds: int


def written(version: object, **body: object) -> bytes:
    """Return a record as the release with that schema version wrote it."""

    class Old(Record):
        kind = "fruit"
        schema_version = version  # type: ignore[assignment]
        model_config = {**Record.model_config, "extra": "allow"}

    return encode_record(Old(**body))


@pytest.mark.parametrize(
    ("version", "body", "seeds"),
    [(1, {"title": "pear"}, 0), (2, {"name": "pear"}, 0), (3, {"name": "pear", "seeds": 9}, 9)],
)
def test_record_of_an_older_schema_is_upgraded_step_by_step(
    version: int, body: dict[str, Any], seeds: int
) -> None:
    assert decode_record(Fruit, written(version, **body), "here") == Fruit(name="pear", seeds=seeds)


@pytest.mark.parametrize("version", [4, 0, -1, True, "3", None, 2.0], ids=repr)
def test_record_of_a_schema_that_cannot_be_read_is_refused(version: object) -> None:
    with pytest.raises(CorruptRecordError, match=r"up to 3\), found version"):
        decode_record(Fruit, written(version, name="pear", seeds=9), "here")


def test_record_with_a_field_too_many_is_refused() -> None:
    with pytest.raises(CorruptRecordError, match="field 'taste'"):
        decode_record(Fruit, written(3, name="pear", seeds=9, taste="sweet"), "here")


STORED = """{
 "attempt": "abc",
 "counts": {
  "documents": 3
 },
 "files": [
  {
   "bytes": 5,
   "part": "train-00000",
   "path": "data/a.zst",
   "role": "documents",
   "sha256": "0f"
  }
 ],
 "info": {
  "loss": 0.5,
  "é": [
   1
  ]
 },
 "kind": "part",
 "part": "train-00000",
 "record_sha256": "CHECKSUM",
 "schema_version": 1
}
"""


def test_record_written_by_the_first_release_is_still_read() -> None:
    checksum = "01b4e4f9c2292b0e491cab3559cd600f5466d82eaa663be6918a2b66282ae9c7"
    assert decode_record(Part, STORED.replace("CHECKSUM", checksum).encode(), "here") == PART


@pytest.mark.parametrize(
    "info",
    [{"loss": float("nan")}, {"a": [float("inf")]}, {"a": {1}}, {"a": {1: 2}}, {"a": np.float64(1)}, {"a": b"1"}],
    ids=repr,
)  # fmt: skip
def test_record_with_a_value_that_json_lacks_is_not_written(info: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"\$\.info"):
        encode_record(PART.model_copy(update={"info": info}))


def test_record_with_numpy_counts_is_refused() -> None:
    with pytest.raises(ValidationError):
        Part(part="a", attempt="b", files=(), counts={"documents": np.int64(3)})


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/.", "a/"])
@pytest.mark.parametrize("field", ["path", "role"])
def test_stored_file_outside_its_folder_is_refused(field: str, path: str) -> None:
    with pytest.raises(ValidationError, match="relative path"):
        StoredFile(**{**FILE.model_dump(), field: path})
    body = {**json.loads(encode_record(PART)), "files": [{**FILE.model_dump(), field: path}]}
    del body["record_sha256"]
    checksum = hashlib.sha256(canonical_json(body)).hexdigest()
    text = json.dumps({**body, "record_sha256": checksum}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with pytest.raises(CorruptRecordError, match="relative path"):
        decode_record(Part, text.encode(), "here")


def test_content_digest_knows_contents_and_not_places() -> None:
    other = FILE.model_copy(update={"part": "train-00001"})
    moved = FILE.model_copy(update={"path": "data/elsewhere"})
    assert content_digest((FILE, other)) == content_digest((other, moved))


@pytest.mark.parametrize(
    "change", [{"part": "b"}, {"role": "b"}, {"sha256": "b"}, {"bytes": 6}], ids=lambda c: next(iter(c))
)
def test_content_digest_changes_with_what_a_reader_sees(change: dict[str, Any]) -> None:
    assert content_digest((FILE.model_copy(update=change),)) != content_digest((FILE,))
    assert content_digest((FILE, FILE.model_copy(update=change))) != content_digest((FILE,))
