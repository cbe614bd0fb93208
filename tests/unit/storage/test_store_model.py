"""The store against a model of it in memory, through random histories with kills."""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter

KEYS = st.sampled_from(["00000000000000aa", "00000000000000ab"])
PARTS = st.sampled_from(["a", "a-b", "train-00000", "train-00001"])
ROLES = st.sampled_from([("documents",), ("documents", "signatures")])
CONTENT = st.binary(max_size=6)

Content = dict[tuple[str, str], bytes]
"""(Part, role) -> content."""


class Killed(BaseException):
    """Stands for kill -9: no code of ours catches it."""


class StoreMachine(RuleBasedStateMachine):
    """Attempts at two artifacts are killed, resumed, forced and published: what must be found after each step."""

    url = ""
    folder = Path()
    publish: Callable[..., Artifact]

    def __init__(self) -> None:
        super().__init__()
        unique = uuid.uuid4().hex
        self.work = self.folder / unique
        self.work.mkdir(parents=True)
        self.store = Store(f"{self.url}/{unique}")
        self.reader = Store(self.store.url)
        self.writers: dict[str, ArtifactWriter] = {}
        self.committed: dict[str, dict[str, dict[str, bytes]]] = {}
        self.published: dict[str, Content] = {}

    def writer(self, key: str) -> ArtifactWriter:
        return self.writers.setdefault(key, ArtifactWriter(self.store, "filter", key))

    def parts(self, key: str) -> dict[str, dict[str, bytes]]:
        return self.committed.setdefault(key, {})

    def local_files(self, roles: tuple[str, ...], content: bytes) -> dict[str, Path]:
        files = {}
        for role in roles:
            files[role] = self.work / f"{uuid.uuid4().hex}.bin"
            files[role].write_bytes(role.encode() + content)
        return files

    @rule(key=KEYS, part=PARTS, roles=ROLES, content=CONTENT)
    def commit(self, key: str, part: str, roles: tuple[str, ...], content: bytes) -> None:
        self.writer(key).commit(part, self.local_files(roles, content), counts={"bytes": len(content)})
        self.parts(key)[part] = {role: role.encode() + content for role in roles}

    @rule(key=KEYS, part=PARTS, roles=ROLES, content=CONTENT, changes=st.integers(0, 4))
    def die_while_committing(
        self, key: str, part: str, roles: tuple[str, ...], content: bytes, changes: int
    ) -> None:
        files = self.local_files(roles, content)
        writer = self.writer(key)
        alive = writer.store.backend
        left = iter(range(changes))

        class Dying:
            def __getattr__(self, name: str) -> object:
                if name in ("write", "put", "delete") and next(left, None) is None:
                    raise Killed
                return getattr(alive, name)

        writer.store.backend = Dying()
        try:
            with contextlib.suppress(Killed):
                writer.commit(part, files, counts={"bytes": len(content)})
        finally:
            writer.store.backend = alive
        if changes > len(roles):  # the record was written too
            self.parts(key)[part] = {role: role.encode() + content for role in roles}
        self.writers[key] = ArtifactWriter(self.store, "filter", key)

    @rule(key=KEYS)
    def start_anew(self, key: str) -> None:
        self.writers[key] = ArtifactWriter(self.store, "filter", key)

    @rule(key=KEYS)
    def force(self, key: str) -> None:
        self.writers[key] = ArtifactWriter(self.store, "filter", key)
        self.writer(key).forget_parts()
        self.committed[key] = {}

    @rule(key=KEYS, part=PARTS)
    def discard(self, key: str, part: str) -> None:
        self.writer(key).discard(part)
        self.parts(key).pop(part, None)

    @rule(key=KEYS, part=PARTS)
    def lose_the_end_of_a_file(self, key: str, part: str) -> None:
        record = self.writer(key).part(part)
        manifest = self.store.manifest("filter", key)
        if record is None or (manifest is not None and record.files[0] in manifest.files):
            return
        path = f"{self.writer(key).folder}/{record.files[0].path}"
        self.store.backend.write(path, self.store.backend.read(path)[:-1])
        del self.parts(key)[part]
        self.writer(key).parts()

    @precondition(lambda self: any(self.committed.values()))
    @rule(data=st.data())
    def publish_the_parts(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, parts in self.committed.items() if parts)))
        parts = self.writer(key).parts()
        assert set(parts) == set(self.parts(key))
        order = data.draw(st.permutations(sorted(parts)))
        report = self.writer(key).report("report.md", data.draw(CONTENT))
        artifact = type(self).publish(self.writer(key), parts=[parts[name] for name in order], reports=[report])
        self.published[key] = {
            (part, role): content for part, roles in self.parts(key).items() for role, content in roles.items()
        }
        entries = [
            [part, role, hashlib.sha256(content).hexdigest(), len(content)]
            for (part, role), content in self.published[key].items()
        ]
        encoded = json.dumps(sorted(entries), separators=(",", ":")).encode()
        assert artifact.content_digest == hashlib.sha256(encoded).hexdigest()
        assert [file.part for file in artifact.files("documents")] == list(order)

    @invariant()
    def what_is_found_is_what_was_published(self) -> None:
        for key in {*self.committed, *self.published, "00000000000000aa"}:
            artifact = self.reader.find("filter", key)
            assert (artifact is None) == (key not in self.published)
            if artifact is not None:
                found = {(f.part, f.role): artifact.open(f).read_bytes() for f in artifact.manifest.files}
                assert found == self.published[key]
        assert {manifest.key for manifest in self.store.manifests()} == set(self.published)

    @invariant()
    def what_is_committed_is_found_by_the_next_attempt(self) -> None:
        for key, parts in self.committed.items():
            assert set(ArtifactWriter(self.reader, "filter", key).parts()) == set(parts)

    def teardown(self) -> None:
        shutil.rmtree(self.work)


@pytest.fixture
def machine(store_url: str, tmp_path: Path, publish: Callable[..., Artifact]) -> type[StoreMachine]:
    fields = {"url": store_url, "folder": tmp_path / "work", "publish": staticmethod(publish)}
    return type("Machine", (StoreMachine,), fields)


def test_store_behaves_like_its_model(machine: type[StoreMachine]) -> None:
    examples, steps = (4, 8) if machine.url.startswith("s3://") else (30, 20)
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )
