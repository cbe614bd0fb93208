import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts.records import Record
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import CorruptFileError
from tests.unit.storage.stored import KEY, STAGE, MakeFile, Publish, damage, independent_digest

# ---- what is returned and what is read back ---------------------------------------------------------------


HOSTILE = {
    "zeta": (3, ({"b": 1, "a": (2.0,)},)),
    "alpha": {"é": 1e-7, "Z": -0.0, "10": 1e22, "9": None, "": {}},
    "Omega": 0.1,
}
"""Keys in no order, tuples, which JSON does not have, and floats whose digits must survive."""


def reordered(value: object) -> object:
    """Return an equal value whose dicts have their keys the other way round."""
    if isinstance(value, dict):
        return {name: reordered(each) for name, each in reversed(value.items())}
    return tuple(map(reordered, value)) if isinstance(value, tuple) else value


def fields_in_order(record: Record) -> dict[str, str]:
    """Return the fields as text that shows the order of keys, tuples from lists, and floats from integers."""
    return {name: repr(getattr(record, name)) for name in type(record).model_fields}


@pytest.mark.parametrize("hostile", [HOSTILE, reordered(HOSTILE)], ids=["one way", "other way"])
def test_part_and_artifact_are_those_that_are_read_back(
    writer: ArtifactWriter, file: MakeFile, publish: Publish, hostile: dict[str, object]
) -> None:
    # A later stage must see the same whether it runs in the process that made its input or finds it.
    names, counts = dict.fromkeys(hostile, "1.0"), dict.fromkeys(hostile, 1)
    upstream = ArtifactWriter(writer.store, "download", KEY)
    upstream.commit("train-00000", {"documents": file()})
    inputs = dict.fromkeys(hostile, publish(upstream))
    files = {name: file(name.encode()) for name in hostile}
    part = writer.commit("train-00000", files, counts=counts, info=hostile)
    artifact = publish(
        writer, config=hostile, inputs=inputs, sources=names, recipe={"filter": hostile}, libraries=names
    )
    read = writer.part("train-00000")
    found = writer.store.find(STAGE, KEY)
    assert read is not None
    assert found is not None
    for returned, stored in ((part, read), (artifact.manifest, found.manifest)):
        assert fields_in_order(returned) == fields_in_order(stored)
        assert returned.model_dump_json() == stored.model_dump_json()


# ---- publishing ----------------------------------------------------------------------------------------------


def test_reports_of_one_role_are_kept_apart_and_the_last_counts(
    writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    part = writer.commit("a", {"documents": file()})
    reports = [
        writer.report(role, text) for role, text in (("r.md", b"first"), ("s.md", b"other"), ("r.md", b"second"))
    ]
    artifact = publish(writer, parts=[part], reports=reports)
    assert artifact.report("r.md") == b"second"
    assert artifact.report("s.md") == b"other"
    assert artifact.report("t.md") is None
    assert writer.store.find(STAGE, KEY) == artifact


def test_reports_do_not_change_the_content_digest(local_store: Store, file: MakeFile, publish: Publish) -> None:
    digests = set()
    for text in (b"took 3 s", b"took 4 s"):
        writer = ArtifactWriter(local_store, STAGE, KEY)
        part = writer.commit("a", {"documents": file()})
        digests.add(publish(writer, parts=[part], reports=[writer.report("r.md", text)]).content_digest)
    assert len(digests) == 1


def test_publish_sums_counts_and_keeps_the_order_of_parts(
    local_writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    parts = [
        local_writer.commit(
            name, {"documents": file(name.encode())}, counts={"documents": number, f"only.{name}": 1}
        )
        for name, number in (("z", 1), ("a", 20))
    ]
    artifact = publish(local_writer, parts=parts)
    assert artifact.counts == {"documents": 21, "only.a": 1, "only.z": 1}
    assert [each.part for each in artifact.files("documents")] == ["z", "a"]
    assert [each.part for each in artifact.files("documents", "a")] == ["a"]


def test_publish_with_a_part_twice_is_refused(
    local_writer: ArtifactWriter, file: MakeFile, publish: Publish
) -> None:
    part = local_writer.commit("a", {"documents": file()})
    with pytest.raises(ValueError, match=r"different names.*'a'"):
        publish(local_writer, parts=[part, part])
    assert local_writer.store.find(STAGE, KEY) is None


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_publish_of_what_is_not_there_is_refused(
    writer: ArtifactWriter, file: MakeFile, publish: Publish, how: str
) -> None:
    part = writer.commit("a", {"documents": file()})
    damage(writer.store, f"{writer.folder}/{part.files[0].path}", how)
    with pytest.raises(CorruptFileError):
        publish(writer, parts=[part])
    assert writer.store.find(STAGE, KEY) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    contents=st.dictionaries(st.sampled_from(["a", "a-b", "b", "train-00000"]), st.binary(max_size=5), min_size=1),
    data=st.data(),
)
def test_content_digest_is_that_of_the_content_whatever_the_order_and_the_attempts(
    tmp_path: Path, publish: Publish, contents: dict[str, bytes], data: st.DataObject
) -> None:
    store = Store(str(tmp_path / uuid.uuid4().hex))
    writer = ArtifactWriter(store, STAGE, KEY)
    for name in data.draw(st.permutations(sorted(contents)), label="order of commits"):
        if data.draw(st.booleans(), label="killed before"):
            writer = ArtifactWriter(store, STAGE, KEY)
        (tmp_path / "x.bin").write_bytes(contents[name])
        writer.commit(name, {"documents": tmp_path / "x.bin"})
    parts = writer.parts()
    order = data.draw(st.permutations(sorted(parts)), label="order of publication")
    artifact = publish(writer, parts=[parts[name] for name in order])
    assert artifact.content_digest == independent_digest(contents)
