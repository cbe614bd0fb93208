"""What the verbs are asked for, found in the store or refused with the way to find it."""

import logging
from collections.abc import Iterable

from flows.runs.request import open_store, store_option
from flows.stages import STAGES
from storage.artifacts.layout import ARTIFACTS, NAME, PINS, RUNS
from storage.artifacts.records import Manifest, Pin, Run, decode_record
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, CorruptRecordError, InputError
from storage.suggestions import did_you_mean

log = logging.getLogger(__name__)


def existing_store(url: str | None) -> Store:
    """Open a store to look at it. Raises: InputError if there is none: a misspelt place is not an empty store."""
    store = open_store(url)
    if not store.paths(RUNS) and not store.paths(ARTIFACTS):
        raise InputError(
            f"there is no store at {store.url}, neither artifacts nor runs; correct --store or PILE_STORE, or "
            f"make one with `pile run RECIPE{store_option(store)}`"
        )
    return store


def readable_pins(store: Store) -> tuple[list[Pin], bool]:
    """Return the pins that can be read, and whether one cannot, which is said on the log."""
    pins, damaged = [], False
    for path in store.paths(PINS):
        try:
            pins.append(decode_record(Pin, store.backend.read(path), f"{store.url}/{path}"))
        except FileNotFoundError:  # removed while we looked
            continue
        except CorruptRecordError as error:
            damaged = True
            log.warning("%s", error)
    return pins, damaged


def find_artifact(store: Store, what: str) -> Artifact:
    """Return the artifact called `stage/key`, or the one of a stage that was finished last.

    Raises: InputError if there is none; CorruptRecordError or CorruptFileError if it is damaged.
    """
    stage, _, key = what.partition("/")
    STAGES.get(stage)
    if not key:
        return newest_of(store, store.manifests(stage), stage)
    if (artifact := store.find(stage, key)) is None:
        raise InputError(f"there is no finished artifact {stage}/{key} in {store.url}; {_see(store)}")
    return artifact


def newest_of(store: Store, manifests: Iterable[Manifest], what: str) -> Artifact:
    """Return the artifact that was finished last.

    Raises: InputError if there is none; CorruptFileError that names the next one if it is damaged.
    """
    newest_first = sorted(manifests, key=lambda manifest: manifest.finished, reverse=True)
    for place, manifest in enumerate(newest_first):
        try:
            artifact = store.find(manifest.stage, manifest.key)
        except (CorruptRecordError, CorruptFileError) as error:
            following = newest_first[place + 1 : place + 2]
            hint = f"; the next newest is {following[0].stage}/{following[0].key}" if following else ""
            raise type(error)(f"{error}{hint}") from error
        if artifact is not None:  # else it was removed while we looked
            return artifact
    raise InputError(f"no run in {store.url} has finished {what}; {_see(store)}")


def find_run(store: Store, what: str | None, others: Iterable[str] = ()) -> Run:
    """Return a run by its id, the newest of a recipe, or the newest of all.

    `others` are names of what else the user may have meant.
    Raises: InputError if there is none; CorruptRecordError if it is there but cannot be read.
    """
    if what is not None and NAME.fullmatch(what) and (named := store.run(what)) is not None:
        return named  # without a look at the others, of which there may be thousands
    known = list(store.runs())
    for found in reversed(known):
        if what is None or what in (found.run_id, found.recipe_name):
            return found
    if what is None and (paths := store.paths(RUNS)):
        raise CorruptRecordError(
            f"the record of a run must be readable to show it, but none of these can be read: "
            f"{', '.join(f'{store.url}/{path}' for path in paths)}; restore one, or show an artifact by its "
            f"stage/key, {_see(store)}"
        )
    meant = f"run {what!r}" if what else "run"
    like = did_you_mean(what or "", {*(run.recipe_name for run in known), *others})
    raise InputError(f"there is no {meant} in {store.url}; {_see(store, 'ls --runs')}{like}")


def _see(store: Store, verb: str = "ls") -> str:
    return f"see `pile {verb}{store_option(store)}`"
