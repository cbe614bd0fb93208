"""`pile gc` after random histories of runs, against a slow model of what a person would miss."""

import itertools
import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.artifacts.records import InputRef, Manifest, Run, RunStage, StoredFile, encode_record
from storage.artifacts.store import Store
from storage.artifacts.upkeep.gc import collect, survey

CHAIN = ("download", "tokenize", "train", "publish")
HOUR = 3600.0
Ref = tuple[str, str]

FATES = ("done", "done", "done", "failed", "running")
"""How a run ends; failed stands for cancelled, interrupted and crashed ones, too: whatever is not done."""


@dataclass
class Wanted:
    """One run of a history: what is asked for, and what becomes of it."""

    recipe: str
    settings: tuple[int, ...]
    fate: str
    stages: int
    """How many it needs, or, of one that does not end well, the number of the one in which it stops."""
    force: bool


@dataclass
class Result:
    wanted: Wanted
    run_id: str
    time: float
    made: list[Ref] = field(default_factory=list)
    named: list[Ref] = field(default_factory=list)
    stopped_at: str = ""


wanted = st.builds(
    Wanted,
    recipe=st.sampled_from(["demo", "own"]),
    settings=st.tuples(*[st.integers(0, 1), st.just(0), st.integers(0, 2), st.integers(0, 1)]),
    fate=st.sampled_from(FATES),
    stages=st.sampled_from([4, 4, 4, 3, 2, 1]),
    force=st.booleans(),
)


class History:
    """Plays runs into a store, twelve hours apart, the last one now."""

    def __init__(self, store: Store, runs: list[Wanted]) -> None:
        self.store, self.finished = store, dict[Ref, tuple[float, str]]()
        now = time.time()
        self.results = [
            self._play(number, one, now - 12 * HOUR * (len(runs) - 1 - number) - 60)
            for number, one in enumerate(runs)
        ]

    def _play(self, number: int, one: Wanted, when: float) -> Result:
        result = Result(one, f"run-{number:03}", when)
        stages, refs = [], self.refs(one.settings)
        for place, ref in enumerate(refs[: one.stages]):
            if one.fate != "done" and place == one.stages - 1:
                stages.append(
                    RunStage(stage=ref[0], key="", state="failed" if one.fate == "failed" else "running")
                )
                result.stopped_at = ref[0]
                self._write(f"artifacts/{ref[0]}/{ref[1]}/data/half-{number}", b"half", when)
                break
            made = ref not in self.finished or one.force
            if made:
                self._finish(ref, refs[place - 1] if place else None, result)
            stages.append(RunStage(stage=ref[0], key=ref[1], state="done" if made else "cached"))
            result.named.append(ref)
        target = stages[-1].stage if one.fate == "done" and one.stages < len(CHAIN) else "all"
        record = Run(
            run_id=result.run_id, recipe_name=one.recipe, recipe={}, target=target, state=one.fate,
            stages=tuple(stages), host="h", started=stamp(when),
        )  # fmt: skip
        self._write(f"runs/{result.run_id}.json", encode_record(record), when)
        return result

    def _finish(self, ref: Ref, above: Ref | None, result: Result) -> None:
        folder, place = f"artifacts/{ref[0]}/{ref[1]}", f"data/{result.run_id}"
        inputs = {"corpus": InputRef(stage=above[0], key=above[1], content_digest="0")} if above else {}
        file = StoredFile(part="p", role="r", path=place, bytes=3, sha256="0" * 64)
        manifest = Manifest(
            stage=ref[0], version=1, key=ref[1], content_digest="0", config={}, inputs=inputs, sources={},
            files=(file,), reports=(), counts={}, recipe={"name": result.wanted.recipe}, run_id=result.run_id,
            code_commit="", libraries={}, attempts=(), started="", finished=stamp(result.time), seconds=0.0,
        )  # fmt: skip
        self._write(f"{folder}/{place}", b"abc", result.time)
        self._write(f"{folder}/manifest.json", encode_record(manifest), result.time)
        self.finished[ref] = (result.time, result.wanted.recipe)
        result.made.append(ref)

    def _write(self, path: str, data: bytes, when: float) -> None:
        self.store.backend.write(path, data)
        os.utime(Path(self.store.url, path), (when, when))

    @staticmethod
    def refs(settings: tuple[int, ...]) -> list[Ref]:
        """Key = the settings of the stage and of all before it."""
        return [(stage, "k" + "".join(map(str, settings[: place + 1]))) for place, stage in enumerate(CHAIN)]


def stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def with_inputs(refs: set[Ref]) -> set[Ref]:
    """The key of an artifact begins with that of its input."""
    return {(CHAIN[length - 2], key[:length]) for _, key in refs for length in range(2, len(key) + 1)}


def good_results(results: list[Result]) -> list[Result]:
    """The complete runs that made something, each outcome once, newest first."""
    seen, found = [], []
    for one in reversed(results):
        if one.wanted.fate == "done" and one.wanted.stages == len(CHAIN) and one.made and one.named not in seen:
            seen.append(one.named)
            found.append(one)
    return found


def missed(history: History, keep: int, hours: float, pinned: list[Ref]) -> tuple[set[Ref], set[str]]:
    """What a person would miss: artifacts, and the stages of which nothing that was begun may go."""
    must, stages = {*pinned}, set[str]()
    for recipe in ("demo", "own"):
        runs = [one for one in history.results if one.wanted.recipe == recipe]
        for stage in CHAIN:
            mine = [ref for ref in history.finished if ref[0] == stage and history.finished[ref][1] == recipe]
            must |= {max(mine, key=lambda ref: history.finished[ref][0])} if mine else set()
            used = [ref for one in runs for ref in one.named if ref[0] == stage]
            must |= {*used[-1:]}
        for one in good_results(runs)[:keep]:
            must |= {*one.named}
        for one in runs:
            pushing = [good for good in good_results(runs) if good.time > one.time and good.named != one.named]
            young = one.time > time.time() - hours * HOUR
            if young or (one.stopped_at and len(pushing) < keep):
                must |= {*one.named}
                stages |= {one.stopped_at}
    return with_inputs(must), stages


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(wanted, min_size=1, max_size=14),
    keep=st.integers(0, 3),
    hours=st.sampled_from([0.5, 24.0, 60.0]),
    pins=st.lists(st.integers(0, 40), max_size=2, unique=True),
)
def test_nothing_goes_that_a_person_would_miss(
    tmp_path: Path, runs: list[Wanted], keep: int, hours: float, pins: list[int]
) -> None:
    store = Store(str(tmp_path / uuid.uuid4().hex))
    history = History(store, runs)
    all_refs = sorted(history.finished)
    pinned = [all_refs[number] for number in pins if number < len(all_refs)]
    for number, ref in enumerate(pinned):
        store.write_pin(f"pin-{number}", *ref)
    must, stages = missed(history, keep, hours, pinned)

    garbage, kept = survey(store, keep, hours * HOUR)
    gone = {
        (item.path.split("/")[1], item.path.split("/")[2]): item for item in garbage if item.kind == "artifact"
    }
    assert not must & gone.keys()
    assert {tuple(one.artifact.split("/")) for one in kept} == history.finished.keys() - gone.keys()
    for ref, item in gone.items():
        if ref not in history.finished:  # a beginning
            assert ref[0] not in stages
            continue
        newer = (item.replaced_by.split("/")[0], item.replaced_by.split("/")[1])
        assert newer[0] == ref[0]
        assert newer not in gone
        assert history.finished[newer] >= history.finished[ref]  # later, and of the same recipe
        assert history.finished[newer][1] == history.finished[ref][1] == item.recipe
    collect(store, garbage)
    left = {(manifest.stage, manifest.key) for manifest in store.manifests()}
    assert left == history.finished.keys() - gone.keys()
    assert with_inputs(left) == left


def test_what_three_newer_results_replaced_goes(tmp_path: Path) -> None:
    """The other half: were everything kept, the test above would say nothing."""
    store = Store(str(tmp_path / "store"))
    runs = [Wanted("demo", (0, 0, train, 0), "done", 4, False) for train in range(8)]
    for ran in itertools.chain([runs[0]], [Wanted("demo", (0, 0, 0, 0), "done", 4, False)] * 2, runs[1:]):
        runs.append(ran)
    history = History(store, runs[8:])
    garbage, _ = survey(store, 3, 1 * HOUR)
    assert {item.path for item in garbage} == {
        f"artifacts/{stage}/{key}" for train in range(5) for stage, key in history.refs((0, 0, train, 0))[2:]
    }
    assert {item.replaced_by for item in garbage} == {"train/k007", "publish/k0070"}


def test_good_model_outlives_runs_that_failed_found_all_or_stopped_early(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    good = Wanted("demo", (0, 0, 0, 0), "done", 4, False)
    bad = [
        Wanted("demo", (1, 0, 1, 0), fate, stages, False)
        for fate, stages in [("failed", 3), ("failed", 1), ("running", 3), ("done", 2), ("done", 2)]
    ]
    history = History(store, [good, *bad, *bad, *bad])
    garbage, _ = survey(store, 1, 1 * HOUR)
    assert not [item for item in garbage if item.kind == "artifact"]
    assert len(history.finished) == 6


def test_damaged_newer_result_replaces_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    runs = [Wanted("demo", (0, 0, train, 0), "done", 4, False) for train in range(2)]
    history = History(store, [*runs, *[Wanted("own", (1, 0, 0, 0), "done", 4, False)] * 3])
    assert {item.path for item in survey(store, 0, HOUR)[0]} == {
        f"artifacts/{stage}/{key}" for stage, key in history.refs((0, 0, 0, 0))[2:]
    }
    for stage, key in history.refs((0, 0, 1, 0))[2:]:
        [data] = store.paths(f"artifacts/{stage}/{key}/data")
        store.backend.delete(data)
    assert survey(store, 0, HOUR)[0] == []
