import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.backends.base import StoreBackend
from tests.unit.storage.stored import KEY, STAGE, Publish, independent_digest


class Turns:
    """Lets two workers make their changes one at a time, in the order of a schedule; after each, it looks."""

    def __init__(self, schedule: Iterator[str], look: Callable[[], None]) -> None:
        self.schedule = schedule
        self.look = look
        self.changed = threading.Condition()
        self.working = {"A", "B"}
        self.turn = next(schedule, "A")

    def change(self, worker: str, call: Callable[..., object], *arguments: object) -> object:
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == worker or self.working == {worker}, timeout=60)
            try:
                return call(*arguments)
            finally:
                self.look()
                self.turn = next(self.schedule, self.turn)
                self.changed.notify_all()

    def finish(self, worker: str) -> None:
        with self.changed:
            self.working.discard(worker)
            self.changed.notify_all()


class Scheduled:
    """A place for files in which a worker makes changes only when it is its turn."""

    def __init__(self, files: StoreBackend, worker: str, turns: Turns) -> None:
        self.files = files
        self.worker = worker
        self.turns = turns

    def __getattr__(self, name: str) -> object:
        call = getattr(self.files, name)
        if name not in ("write", "create", "put", "delete"):
            return call
        return lambda *arguments: self.turns.change(self.worker, call, *arguments)


def run_two_writers(folder: Path, schedule: str, publish: Publish, *, same_content: bool) -> None:
    """Let two attempts at one artifact run to their end; every manifest that is ever visible must verify."""
    root = folder / uuid.uuid4().hex
    root.mkdir()
    store = Store(str(root / "store"))
    problems: list[BaseException] = []
    seen = set()

    def look() -> None:
        found = store.find(STAGE, KEY)
        if found is not None:
            seen.add(found.manifest.attempts)
            for each in found.manifest.files:
                assert (
                    hashlib.sha256((root / "store" / found.url / each.path).read_bytes()).hexdigest()
                    == each.sha256
                )

    turns = Turns(iter(schedule), look)

    def work(worker: str) -> None:
        try:
            own = Store(str(root / "store"))
            own.backend = Scheduled(own.backend, worker, turns)
            writer = ArtifactWriter(own, STAGE, KEY)

            def commit(part: str) -> None:
                local = root / f"{worker}-{part}.bin"
                local.write_bytes(part.encode() if same_content else f"{worker} {part}".encode())
                writer.commit(part, {"documents": local})

            commit("step-1")
            for part in ("p", "q"):
                if part not in writer.parts():
                    commit(part)
            commit("step-1")  # a checkpoint is replaced, and thrown away at the end
            writer.discard("step-1")
            parts = writer.parts()
            publish(writer, parts=[parts[name] for name in ("p", "q")])
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)
        finally:
            turns.finish(worker)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert seen
    artifact = store.find(STAGE, KEY)
    assert artifact is not None
    if same_content:
        assert artifact.content_digest == independent_digest({"p": b"p", "q": b"q"})


CHANGES = 12
"""More than one of the two writers makes."""


@pytest.mark.parametrize("before", range(CHANGES))
def test_two_writers_of_which_one_pauses_leave_only_whole_manifests(
    tmp_path: Path, publish: Publish, before: int
) -> None:
    for pause in (1, 2, 4, 8, CHANGES):
        schedule = "A" * before + "B" * pause + "A" * CHANGES
        run_two_writers(tmp_path, schedule, publish, same_content=before % 2 == 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(schedule=st.text("AB", max_size=2 * CHANGES), same_content=st.booleans())
def test_two_writers_in_any_order_leave_only_whole_manifests(
    tmp_path: Path, publish: Publish, schedule: str, same_content: bool
) -> None:
    run_two_writers(tmp_path, schedule, publish, same_content=same_content)
