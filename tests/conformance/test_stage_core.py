"""What every stage gets from the core: the finished is found, the forced is the same, the killed goes on."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from storage.artifacts.records import Part
from storage.artifacts.store import Store
from storage.config import Config
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage, StageResult

SHARDS = [f"train-{number:05d}" for number in range(4)]


class SquaresConfig(Config):
    """Which squares are written."""

    first: int = 1
    """The smallest number."""
    diary: str = ""
    """File in which every piece of work is written down."""
    dies_after: int = 0
    """Parts after which the process is killed; 0 for never."""

    excluded_from_key = frozenset({"diary", "dies_after"})


def write_squares(config: SquaresConfig, *, context: StageContext) -> list[Part]:
    parts = context.finished_parts(SHARDS)
    for number, name in enumerate(SHARDS):
        if name in parts:
            continue
        with Path(config.diary).open("a") as diary:
            diary.write(f"{name}\n")
        local = context.writer.scratch() / f"{name}.json"
        local.write_text(json.dumps((config.first + number) ** 2))
        parts[name] = context.writer.commit(name, {"squares": local}, counts={"squares": 1})
        if config.dies_after == len(parts):
            os.kill(os.getpid(), signal.SIGKILL)
    return [parts[name] for name in SHARDS]


SQUARES = Stage(name="squares", version=1, config=SquaresConfig, build=write_squares)


def run(folder: Path, *, store: str = "store", dies_after: int = 0, force: bool = False) -> StageResult:
    config = SquaresConfig(diary=str(folder / "diary"), dies_after=dies_after)
    context = RunContext(Store(str(folder / store)), "test", {}, Execution(workers=1))
    return run_stage(SQUARES, config, {}, context, force=force, resume=not force)


def work(folder: Path) -> list[str]:
    return (folder / "diary").read_text().split()


def test_finished_stage_does_no_work_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    second = run(tmp_path)
    assert (first.cached, second.cached) == (False, True)
    assert work(tmp_path) == SHARDS
    assert second.artifact.manifest == first.artifact.manifest


def test_forced_stage_does_all_work_again_and_has_the_same_digest(tmp_path: Path) -> None:
    first, forced = run(tmp_path), run(tmp_path, force=True)
    assert not forced.cached
    assert work(tmp_path) == SHARDS * 2
    assert forced.artifact.content_digest == first.artifact.content_digest


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_killed_stage_goes_on_with_what_it_committed(tmp_path: Path, parts: int) -> None:
    killed = multiprocessing.get_context("fork").Process(
        target=run, args=(tmp_path,), kwargs={"dies_after": parts}
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert work(tmp_path) == SHARDS[:parts]
    resumed = run(tmp_path)
    assert not resumed.cached
    assert work(tmp_path) == SHARDS
    assert resumed.artifact.content_digest == run(tmp_path, store="undisturbed").artifact.content_digest
