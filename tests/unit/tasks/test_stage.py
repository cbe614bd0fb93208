"""The stage contract, with two small real stages: lines of text, and their lengths."""

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from storage.artifacts.lease import Lease
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.config import Config
from storage.errors import InputError, LeaseLostError, StoreAwayError
from tasks.core.context import TABLES, StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext, Stage
from tasks.executors.local import for_each_shard


class LinesConfig(Config):
    lines: int = 3
    prefix: str = "line"
    folder: str = ""
    excluded_from_key = frozenset({"folder"})


def write_lines(config: LinesConfig, *, context: StageContext) -> list[Part]:
    parts = []
    for number in range(config.lines):
        local = context.writer.scratch() / f"{number}.txt"
        local.write_text(f"{config.prefix} {number}\n")
        parts.append(context.writer.commit(f"train-{number:05d}", {"documents": local}, counts={"documents": 1}))
    context.table("Lines", [{"lines": config.lines}])
    return parts


class LengthConfig(Config):
    fail: bool = False


def measure(config: LengthConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    if config.fail:
        raise InputError("the lines must be shorter")
    lengths = [len(corpus.open(file).read_text()) for file in corpus.files("documents")]
    local = context.writer.scratch() / "lengths.json"
    local.write_text(json.dumps(lengths))
    return [context.writer.commit("lengths", {"lengths": local}, counts={"bytes": sum(lengths)})]


LINES = Stage(name="lines", version=1, config=LinesConfig, build=write_lines)
LENGTHS = Stage(name="lengths", version=1, config=LengthConfig, build=measure, inputs={"corpus": "lines"})


def context_for(store: Store, run_id: str = "test") -> RunContext:
    return RunContext(store=store, run_id=run_id, recipe={}, execution=Execution(workers=1))


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return context_for(Store(str(tmp_path / "store")))


def test_stage_run_twice_is_cached_and_keeps_tables(context: RunContext) -> None:
    first = run_stage(LINES, LinesConfig(), {}, context)
    second = run_stage(LINES, LinesConfig(), {}, context)
    assert (first.cached, second.cached) == (False, True)
    assert second.artifact.manifest == first.artifact.manifest
    assert second.artifact.counts == {"documents": 3}
    assert json.loads(second.artifact.report(TABLES) or b"") == {"Lines": [{"lines": 3}]}


def test_stage_with_other_place_is_cached_with_other_meaning_is_not(context: RunContext) -> None:
    run_stage(LINES, LinesConfig(folder="here"), {}, context)
    assert run_stage(LINES, LinesConfig(folder="there"), {}, context).cached
    assert not run_stage(LINES, LinesConfig(prefix="row"), {}, context).cached


def test_stage_rebuilt_to_same_content_leaves_followers_cached(context: RunContext) -> None:
    lines = run_stage(LINES, LinesConfig(), {}, context).artifact
    run_stage(LENGTHS, LengthConfig(), {"corpus": lines}, context)
    newer = Stage(name="lines", version=2, config=LinesConfig, build=write_lines)
    again = run_stage(newer, LinesConfig(), {}, context)
    assert not again.cached
    assert run_stage(LENGTHS, LengthConfig(), {"corpus": again.artifact}, context).cached


def test_stage_forced_is_built_again_with_the_same_digest(context: RunContext) -> None:
    first = run_stage(LINES, LinesConfig(), {}, context).artifact
    forced = run_stage(LINES, LinesConfig(), {}, context, force=True, resume=False)
    assert not forced.cached
    assert forced.artifact.content_digest == first.content_digest
    assert forced.artifact.manifest.attempts != first.manifest.attempts


def test_stage_that_fails_leaves_no_manifest_and_no_lease(context: RunContext) -> None:
    lines = run_stage(LINES, LinesConfig(), {}, context).artifact
    with pytest.raises(InputError, match="shorter"):
        run_stage(LENGTHS, LengthConfig(fail=True), {"corpus": lines}, context)
    assert not list(context.store.manifests("lengths"))
    assert not context.store.paths("leases")


def run_slow_stage(url: str, order: str, barrier: object, results: object) -> None:
    def slow(config: LinesConfig, *, context: StageContext) -> list[Part]:
        time.sleep(0.5)
        return write_lines(config, context=context)

    stage = Stage(name="lines", version=1, config=LinesConfig, build=slow)
    barrier.wait()
    result = run_stage(stage, LinesConfig(), {}, context_for(Store(url), order))
    results.put((result.cached, result.artifact.manifest.run_id))


def test_stage_run_by_two_processes_at_once_is_built_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(2), fork.Queue()
    arguments = [(str(tmp_path), name, barrier, results) for name in ("a", "b")]
    runs = [fork.Process(target=run_slow_stage, args=each) for each in arguments]
    for run in runs:
        run.start()
    found = [results.get(timeout=60) for _ in runs]
    for run in runs:
        run.join()
    assert sorted(cached for cached, _ in found) == [False, True]
    assert len({run_id for _, run_id in found}) == 1


def test_stage_whose_lease_is_taken_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lease.__init__, "__defaults__", (0.4,))
    store = Store(str(tmp_path))

    def robbed(config: LinesConfig, *, context: StageContext) -> list[Part]:
        path = f"leases/lines/{context.writer.key}.json"
        thief = store.lease("lines", context.writer.key, "thief", lambda: None)
        threading.Timer(0.25, lambda: store.backend.write(path, thief._renewed())).start()
        time.sleep(20)  # the loss must interrupt this
        raise AssertionError("the work went on after its lease was lost")

    stage = Stage(name="lines", version=1, config=LinesConfig, build=robbed)
    with pytest.raises(LeaseLostError, match="lost to another run"):
        run_stage(stage, LinesConfig(), {}, context_for(store))


class AppendLine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: str) -> None:
        if item == "bad":
            raise InputError("items must be good, found 'bad'")
        (self.folder / item).write_text(item)


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_are_each_worked_on_once(context: RunContext, tmp_path: Path, workers: int) -> None:
    progress = []

    def build(config: LinesConfig, *, context: StageContext) -> list[Part]:
        context.workers = workers
        context.progress = lambda done, total, unit, *_: progress.append((done, total, unit))
        for_each_shard(context, ["a", "b", "c"], AppendLine(tmp_path))
        return write_lines(config, context=context)

    run_stage(Stage(name="lines", version=1, config=LinesConfig, build=build), LinesConfig(), {}, context)
    assert sorted(path.name for path in tmp_path.glob("?")) == ["a", "b", "c"]
    assert progress[-1] == (3, 3, "shards")


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_raise_the_error_of_a_worker(context: RunContext, tmp_path: Path, workers: int) -> None:
    def build(config: LinesConfig, *, context: StageContext) -> list[Part]:
        context.workers = workers
        for_each_shard(context, ["a", "bad"], AppendLine(tmp_path))
        return []

    stage = Stage(name="lines", version=1, config=LinesConfig, build=build)
    with pytest.raises(InputError, match="found 'bad'"):
        run_stage(stage, LinesConfig(), {}, context)


# ---- a store that is away ---------------------------------------------------------------------------


class Away:
    """Stands in for a store that was away when the work failed, as often as is wished."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bool) -> None:
        self.answers = list(answers)
        monkeypatch.setattr(Store, "wait_if_away", lambda _: self.answers.pop(0))


def failing_once_per(*errors: Exception) -> Stage:
    """Return the stage LINES whose build fails so often, each time after another part."""
    left = list(errors)

    def build(config: LinesConfig, *, context: StageContext) -> list[Part]:
        done = context.finished_parts([f"train-{number:05d}" for number in range(config.lines)])
        for number in range(config.lines):
            if f"train-{number:05d}" not in done:
                if left and number == config.lines - len(left):
                    raise left.pop(0)
                local = context.writer.scratch() / f"{number}.txt"
                local.write_text(f"{config.prefix} {number}\n")
                context.writer.commit(f"train-{number:05d}", {"documents": local}, counts={"documents": 1})
                built.append(number)
        return list(context.writer.parts().values())

    built.clear()
    return Stage(name="lines", version=1, config=LinesConfig, build=build)


built: list[int] = []


@pytest.mark.parametrize("force", [False, True])
def test_work_that_fails_while_the_store_is_away_goes_on_with_what_is_finished(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, force: bool
) -> None:
    away = Away(monkeypatch, True, True)
    stage = failing_once_per(FileNotFoundError("scratch is gone"), ValueError("half of a file"))
    artifact = run_stage(stage, LinesConfig(), {}, context, force=force, resume=not force).artifact
    assert artifact.counts == {"documents": 3}
    assert (built, away.answers) == ([0, 1, 2], []), "no part was made twice"
    assert "lines failed while the store was away, and goes on: scratch is gone" in caplog.text


def test_work_that_fails_while_the_store_answers_has_failed(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    Away(monkeypatch, False)
    with pytest.raises(FileNotFoundError, match="scratch is gone"):
        run_stage(failing_once_per(FileNotFoundError("scratch is gone")), LinesConfig(), {}, context)


@pytest.mark.parametrize("error", [InputError("no"), LeaseLostError("lost"), StoreAwayError("for too long")])
def test_what_no_waiting_heals_is_raised_without_a_look_at_the_store(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    away = Away(monkeypatch, True)
    with pytest.raises(type(error)):
        run_stage(failing_once_per(error), LinesConfig(), {}, context)
    assert away.answers == [True]
