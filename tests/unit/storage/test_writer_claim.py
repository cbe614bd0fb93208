"""A writer looks whether its lease is still held: before each commit, and before the manifest."""

from collections.abc import Callable

import pytest

from storage.artifacts.layout import attempt_path, manifest_path
from storage.artifacts.lease import Claim
from storage.artifacts.records import LeaseRecord, encode_record
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import LeaseLostError
from tests.unit.storage.stored import KEY, STAGE, MakeFile, Publish


@pytest.fixture
def held(store: Store) -> ArtifactWriter:
    """A writer whose lease is held."""
    claim = Claim(store.lease_path(STAGE, KEY), "ours")
    store.backend.write(claim.path, lease_of("ours"))
    return ArtifactWriter(store, STAGE, KEY, claim)


def lease_of(holder: str) -> bytes:
    return encode_record(
        LeaseRecord(holder=holder, run_id="r", host="h", process_id=1, process_start="1", renewals=1, expires=0.0)
    )


def take(writer: ArtifactWriter) -> None:
    """Give the lease to another holder."""
    assert writer.claim is not None
    writer.store.backend.write(writer.claim.path, lease_of("other"))


def spoil(writer: ArtifactWriter) -> None:
    """Leave a record there that nobody can read."""
    assert writer.claim is not None
    writer.store.backend.write(writer.claim.path, b"{")


def tidy_away(writer: ArtifactWriter) -> None:
    """Remove the lease, as a clean-up would; its holder is about to put it back."""
    assert writer.claim is not None
    writer.store.backend.delete(writer.claim.path)


LOST = pytest.mark.parametrize("lose", [take, spoil])


def test_held_lease_lets_everything_through(held: ArtifactWriter, file: MakeFile, publish: Publish) -> None:
    artifact = publish(held, parts=[held.commit("a", {"documents": file()})])
    assert held.store.find(STAGE, KEY) == artifact


def test_lease_that_was_tidied_away_is_not_lost(held: ArtifactWriter, file: MakeFile, publish: Publish) -> None:
    tidy_away(held)
    assert publish(held, parts=[held.commit("a", {"documents": file()})]).ref == f"{STAGE}/{KEY}"


@LOST
def test_part_is_not_committed_without_the_lease(
    held: ArtifactWriter, file: MakeFile, lose: Callable[[ArtifactWriter], None]
) -> None:
    held.commit("a", {"documents": file()})
    lose(held)
    with pytest.raises(LeaseLostError, match="was lost to another run"):
        held.commit("b", {"documents": file(b"b")})
    assert list(ArtifactWriter(held.store, STAGE, KEY).parts()) == ["a"]


@LOST
def test_part_of_another_holder_is_not_replaced_without_the_lease(
    held: ArtifactWriter, file: MakeFile, lose: Callable[[ArtifactWriter], None]
) -> None:
    other = ArtifactWriter(held.store, STAGE, KEY)
    theirs = other.commit("a", {"documents": file(b"theirs")})
    lose(held)
    with pytest.raises(LeaseLostError):
        held.commit("a", {"documents": file(b"ours")})
    assert other.part("a") == theirs


@LOST
def test_manifest_is_not_written_without_the_lease(
    held: ArtifactWriter, file: MakeFile, publish: Publish, lose: Callable[[ArtifactWriter], None]
) -> None:
    held.begin(version=1, config={}, inputs={}, sources={}, recipe_name="", run_id="r")
    part = held.commit("a", {"documents": file()})
    lose(held)
    with pytest.raises(LeaseLostError):
        publish(held, parts=[part])
    paths = held.store.paths(held.folder)
    assert manifest_path(held.folder) not in paths
    assert attempt_path(held.folder) in paths, "the attempt is the other holder's now"
