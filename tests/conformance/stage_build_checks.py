"""What every stage promises of its work (tasks/core/stage.py), one check per promise, on real inputs.

A check builds the stage anew, in a store that holds its inputs and nothing else, and compares with what it gave
before. That the order of a set never reaches a file needs processes: tests/integration/test_reproducible.py.
"""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from storage.artifacts.layout import artifact_folder
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import Config
from tasks.core.context import Progress
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage


@dataclass(frozen=True)
class Built:
    """A stage and what it gave, built by one worker."""

    stage: Stage
    config: Config
    inputs: Mapping[str, Artifact]
    artifact: Artifact
    folder: Path
    """Where the stores of the checks go."""

    def new_store(self) -> Store:
        """Return a store in a place of its own, in which only the inputs are."""
        store = Store(str(Path(tempfile.mkdtemp(dir=self.folder)) / "store"))
        for artifact in self.inputs.values():
            own = artifact_folder(artifact.manifest.stage, artifact.manifest.key)
            shutil.copytree(f"{artifact.store.url}/{own}", f"{store.url}/{own}", dirs_exist_ok=True)
        return store

    def build(self, store: Store, *, workers: int = 1, progress: Progress = lambda *_: None) -> Artifact:
        """Build the stage there, from nothing or from what an attempt before it left."""
        found = {role: store.find(read.manifest.stage, read.manifest.key) for role, read in self.inputs.items()}
        inputs = {role: artifact for role, artifact in found.items() if artifact is not None}
        context = RunContext(store, "check", {}, execution(workers), progress)
        result = run_stage(self.stage, self.config, inputs, context)
        assert not result.cached
        return result.artifact

    @cached_property
    def resumed(self) -> tuple[dict[str, Part], Artifact]:
        """The parts that interrupted work left, and what came of going on with them."""
        store = self.new_store()
        committed = _interrupt(self, store)
        return committed, self.build(store)


def execution(workers: int) -> Execution:
    """Return how the stages of these checks work: where sums are rounded in one order."""
    return Execution(workers=workers, threads=1, device="cpu")


def content_is_the_same_in_another_place(built: Built) -> None:
    store = built.new_store()
    with contextlib.chdir(tempfile.mkdtemp(dir=built.folder)), pytest.MonkeyPatch.context() as environment:
        environment.setenv("PILE_SCRATCH", tempfile.mkdtemp(dir=built.folder))
        assert built.build(store).content_digest == built.artifact.content_digest


def content_is_the_same_with_more_workers(built: Built) -> None:
    assert built.build(built.new_store(), workers=2).content_digest == built.artifact.content_digest


def interrupted_work_goes_on_to_the_same_content(built: Built) -> None:
    _, artifact = built.resumed
    assert artifact.content_digest == built.artifact.content_digest


def committed_parts_are_not_done_again(built: Built) -> None:
    committed, artifact = built.resumed
    for name in committed.keys() & {file.part for file in artifact.manifest.files}:
        files = [file for file in artifact.manifest.files if file.part == name]
        assert files == list(committed[name].files), f"{name} was committed; its files name the attempt"


def result_is_a_part_that_it_writes(built: Built) -> None:
    assert built.stage.result in ("", *(file.part for file in built.artifact.manifest.files))


BUILD_CHECKS: dict[str, Callable[[Built], None]] = {
    check.__name__: check
    for check in (
        content_is_the_same_in_another_place,
        content_is_the_same_with_more_workers,
        interrupted_work_goes_on_to_the_same_content,
        committed_parts_are_not_done_again,
        result_is_a_part_that_it_writes,
    )
}


class _InterruptedError(BaseException):
    """Stops the work as Ctrl-C does."""


def _interrupt(built: Built, store: Store) -> dict[str, Part]:
    """Stop the work behind the first part that it commits of its result; return what is committed then.

    A stage that works in a process of its own is stopped where it tells of its progress after a commit.
    """
    writer = ArtifactWriter(store, built.stage.name, built.artifact.manifest.key)
    parts_folder = f"{writer.folder}/parts"
    wanted = {file.part for file in built.artifact.manifest.files}
    seen: list[str] = []

    def progress(done: int, total: int, unit: str, *_: str) -> None:
        if threading.current_thread() is threading.main_thread() and not seen and store.paths(parts_folder):
            raise _InterruptedError

    with _after_commit(wanted, seen), pytest.raises(_InterruptedError):
        built.build(store, progress=progress)
    return writer.parts()


@contextlib.contextmanager
def _after_commit(wanted: set[str], seen: list[str]) -> Iterator[None]:
    """Have the first commit of a wanted part raise once it is done; note every commit of this process."""

    def interrupting(commit: Callable[..., Part]) -> Callable[..., Part]:
        def commit_and_stop(self: ArtifactWriter, part: str, *arguments: Any, **options: Any) -> Part:
            committed = commit(self, part, *arguments, **options)
            seen.append(part)
            if part in wanted:
                raise _InterruptedError
            return committed

        return commit_and_stop

    with (
        patch.object(ArtifactWriter, "commit", interrupting(ArtifactWriter.commit)),
        patch.object(ArtifactWriter, "commit_folder", interrupting(ArtifactWriter.commit_folder)),
    ):
        yield
