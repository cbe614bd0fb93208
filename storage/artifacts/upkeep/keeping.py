"""What garbage collection must leave, and why: what one of these rules names, with all it was made from.

- a pin names it
- of what its recipe made in its stage it was finished last (of the undamaged, too), or it is what a run of that
  recipe used last, whatever runs came after
- one of the newest runs of its recipe names it. Only runs that ended `done` and made something push older ones
  out, and only those that they cover: their stages or, if they were stopped, their target. Equal results count
  once. So what a stopped run needs to go on stays, and no failed, empty or partial run costs a good result its
  place
- it is young, a young run names it, or a run is at work on it

Where a record that might protect something cannot be read, nothing is decided: the error says which one.
"""

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from storage.artifacts.layout import ARTIFACTS, LEASES, RUNS, manifest_path
from storage.artifacts.lease import TAKEOVER, holder_is_gone
from storage.artifacts.records import LeaseRecord, Manifest, Run, decode_record
from storage.artifacts.store import Store
from storage.errors import CorruptRecordError

log = logging.getLogger(__name__)

THREADS = 8

Ref = tuple[str, str]
"""Stage and key of an artifact."""

Files = dict[str, tuple[int, float]]
"""Path -> bytes and time of the last change (Unix time)."""


@dataclass(frozen=True)
class Needs:
    """What is in the store, what of it must stay, and why."""

    files: dict[Ref, Files]
    manifests: dict[Ref, Manifest]
    """Of the finished artifacts."""
    reasons: dict[Ref, str]
    """Why each of the artifacts that must stay does."""
    leased: frozenset[Ref]
    resumable: frozenset[str]
    """Stages that a kept run has not finished: it does not say under which key, so all of theirs are kept."""

    def replacement(self, manifest: Manifest) -> str:
        """Return `stage/key` of the newest other of its recipe and stage, a sound one if there is."""
        ref, group = (manifest.stage, manifest.key), (recipe_of(manifest), manifest.stage)
        others = [
            other
            for other, found in self.manifests.items()
            if other != ref and (recipe_of(found), found.stage) == group
        ]
        sound = [other for other in others if is_whole(self, other)]
        newest = max(sound or others, key=lambda other: self.manifests[other].finished)
        return "/".join(newest)


def recipe_of(manifest: Manifest) -> str:
    """Return the name of the recipe that made an artifact; empty if it was none."""
    return str(manifest.recipe.get("name", ""))


def folder_of(ref: Ref) -> str:
    """Return the folder of an artifact in the store, whatever somebody has put there as its name."""
    return "/".join((ARTIFACTS, *ref))


def find_needs(store: Store, keep_runs: int, oldest: float) -> Needs:
    """Return what must stay; `oldest` (Unix time) is the change from which on something is young.

    Raises: CorruptRecordError if a pin, a run or a manifest cannot be read.
    """
    files = _listing(store)  # first: what is finished later is in no plan
    leased = _live_leases(store)
    runs = _runs(store)
    pins = store.pins()
    needs = Needs(files, _manifests(store, files), {}, frozenset(leased), frozenset())
    kept = _kept_runs(needs, runs, keep_runs, oldest, set(leased.values()))
    roots = {(pin.stage, pin.key): f"pinned as {pin.name}" for pin in reversed(pins)}
    found = itertools.chain(
        _of_leases(leased, runs, needs),
        _newest_results(needs, [run for run, _ in runs]),
        ((ref, reason) for run, reason in kept for ref in _refs(run)),
        _young(needs, oldest),
    )
    for ref, reason in found:
        roots.setdefault(ref, reason)
    resumable = {stage.stage for run, _ in kept for stage in run.stages if not stage.key}
    return Needs(files, needs.manifests, _with_ancestors(needs, roots), needs.leased, frozenset(resumable))


def is_whole(needs: Needs, ref: Ref) -> bool:
    """Tell whether all files of a finished artifact are there in their sizes: a damaged one replaces nothing."""
    manifest, folder, found = needs.manifests[ref], folder_of(ref), needs.files[ref]
    return all(found.get(f"{folder}/{file.path}", (-1, 0))[0] == file.bytes for file in manifest.files)


def holder_of(store: Store, path: str) -> LeaseRecord | CorruptRecordError | None:
    """Return a lease, or why it cannot be read; None if it has been released."""
    try:
        return decode_record(LeaseRecord, store.backend.read(path), path)
    except FileNotFoundError:
        return None
    except CorruptRecordError as error:
        return error


# ---- the rules ---------------------------------------------------------------------------------------------


def _of_leases(leased: dict[Ref, str], runs: list[tuple[Run, float]], needs: Needs) -> Iterator[tuple[Ref, str]]:
    for ref, run_id in leased.items():
        yield ref, f"run {run_id} is at work on it"
    if unknown := {*leased.values()} - {run.run_id for run, _ in runs}:
        log.warning(
            "keeping all finished artifacts: any may be an input of %s, which left no record", sorted(unknown)
        )
        for ref in needs.manifests:
            yield ref, f"it may be an input of {', '.join(sorted(unknown))}, which left no record"


def _newest_results(needs: Needs, runs: list[Run]) -> Iterator[tuple[Ref, str]]:
    results: dict[tuple[str, str], set[Ref]] = defaultdict(set)
    last_used: dict[tuple[str, str], Ref] = {}
    for ref, manifest in needs.manifests.items():
        results[recipe_of(manifest), manifest.stage].add(ref)
    for run in sorted(runs, key=lambda run: run.started):
        for ref in _refs(run):
            last_used[run.recipe_name, ref[0]] = ref
    for (recipe, stage), refs in results.items():
        for candidates in ([ref for ref in refs if is_whole(needs, ref)], list(refs)):
            latest = max((needs.manifests[ref].finished for ref in candidates), default="")
            for ref in candidates:
                if needs.manifests[ref].finished == latest:
                    yield ref, f"newest {stage} of {recipe or 'no recipe'}"
    for (recipe, stage), ref in last_used.items():
        yield ref, f"the {stage} that {recipe} used last"


def _kept_runs(
    needs: Needs, runs: list[tuple[Run, float]], keep: int, oldest: float, working: set[str]
) -> list[tuple[Run, str]]:
    kept = []
    useful: dict[str, list[Run]] = defaultdict(list)
    for run, changed in sorted(runs, key=lambda found: found[0].started, reverse=True):
        refs = frozenset(_refs(run))
        pushing = {frozenset(_refs(newer)) for newer in useful[run.recipe_name] if _covers(newer, run)} - {refs}
        # A run holds no lease between two stages, but it has just written down the one that it finished.
        if run.run_id in working or (run.state == "running" and changed > oldest):
            kept.append((run, f"run {run.run_id} is at work"))
        elif len(pushing) < keep:
            kept.append((run, f"of run {run.run_id}, which {keep} newer results have not replaced"))
        elif changed > oldest:
            kept.append((run, f"young run {run.run_id} used it"))
        if _is_useful(run) and all(ref in needs.manifests and is_whole(needs, ref) for ref in refs):
            useful[run.recipe_name].append(run)
    return kept


def _covers(newer: Run, run: Run) -> bool:
    """Tell whether a run has made all that an older one has, or, of one that was stopped, was asked to make."""
    has_all = {stage.stage for stage in run.stages} <= {stage.stage for stage in newer.stages}
    return has_all and (run.state == "done" or newer.target in (run.target, "all"))


def _is_useful(run: Run) -> bool:
    states = [stage.state for stage in run.stages]
    return run.state == "done" and "done" in states and {*states} <= {"done", "cached"}


def _young(needs: Needs, oldest: float) -> Iterator[tuple[Ref, str]]:
    for ref in needs.manifests:
        if max(changed for _, changed in needs.files[ref].values()) > oldest:
            yield ref, "younger than the given age"


def _with_ancestors(needs: Needs, roots: dict[Ref, str]) -> dict[Ref, str]:
    reasons = dict(roots)
    left = [*roots]
    while left:
        ref = left.pop()
        manifest = needs.manifests.get(ref)
        for upstream in manifest.inputs.values() if manifest else ():
            above = (upstream.stage, upstream.key)
            if above not in reasons:
                reasons[above] = f"{'/'.join(ref)} was made from it"
                left.append(above)
    return reasons


# ---- what is in the store ----------------------------------------------------------------------------------


def _refs(run: Run) -> list[Ref]:
    return [(stage.stage, stage.key) for stage in run.stages if stage.key]


def _listing(store: Store) -> dict[Ref, Files]:
    found: dict[Ref, Files] = defaultdict(dict)
    for path, size, changed in store.backend.list(ARTIFACTS):
        if path.count("/") > 2:
            _, stage, key, *_ = path.split("/")
            found[stage, key][path] = (size, changed)
    return dict(found)


def _manifests(store: Store, files: dict[Ref, Files]) -> dict[Ref, Manifest]:
    refs = [ref for ref, found in files.items() if manifest_path(folder_of(ref)) in found]
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(lambda ref: store.manifest(*ref), refs)
        return {ref: manifest for ref, manifest in zip(refs, read, strict=True) if manifest is not None}


def _runs(store: Store) -> list[tuple[Run, float]]:
    runs = []
    for path, _, changed in store.backend.list(RUNS):
        runs.append((decode_record(Run, store.backend.read(path), f"{store.url}/{path}"), changed))
    return runs


def _live_leases(store: Store) -> dict[Ref, str]:
    """Return artifact -> run for all leases but those whose holder is known to be gone."""
    live = {}
    for path in store.paths(LEASES):
        record = holder_of(store, path)
        if record is not None and not (isinstance(record, LeaseRecord) and holder_is_gone(record)):
            _, stage, name = path.split("/")
            run_id = record.run_id if isinstance(record, LeaseRecord) else "a lease that cannot be read"
            live[stage, name.removesuffix(TAKEOVER).removesuffix(".json")] = run_id
    return live
