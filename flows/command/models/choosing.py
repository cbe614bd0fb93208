"""Which model of a store is meant, and what is said of it: one is never taken in silence."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flows.command.output import say
from flows.command.store.finding import find_artifact, newest_of
from flows.runs.request import store_option
from flows.stages import STAGES
from storage.artifacts.layout import NAME
from storage.artifacts.records import Manifest, Run
from storage.artifacts.store import Artifact, Store
from storage.artifacts.upkeep.keeping import recipe_of
from storage.errors import InputError
from storage.wording import age

MODEL_STAGE = "train"


@dataclass(frozen=True)
class Choice:
    """Where a model comes from, as people and `--json` are told."""

    model: str
    """`stage/key` of the artifact, or the folder."""
    recipe: str = ""
    run_id: str = ""
    finished: str = ""
    """ISO 8601; all three are empty for a folder, which does not say."""

    @classmethod
    def of(cls, artifact: Artifact) -> "Choice":
        """Return what the manifest says."""
        manifest = artifact.manifest
        return cls(artifact.ref, recipe_of(manifest), manifest.run_id, manifest.finished)

    def say(self) -> None:
        """Name the model on standard error, where it does not mix with its text."""
        origin = ""
        if self.finished:
            seconds = (datetime.now(UTC) - datetime.fromisoformat(self.finished)).total_seconds()
            recipe = f" of recipe {self.recipe}" if self.recipe else ""
            origin = f"{recipe}, made {age(seconds)} ago by run {self.run_id}"
        say(f"model: {self.model}{origin}")


def choose_model(store: Store, what: str | None) -> Artifact:
    """Return the artifact that is meant: of a stage, `stage/key`, a run's id or a recipe's name.

    Without a name the model that was finished last; of a recipe the last that it made or used.
    Raises: InputError if it has no model, with the names of those that do; CorruptFileError if it is damaged.
    """
    if what is not None and ("/" in what or what in STAGES.names()):
        return find_artifact(store, what)
    models = list(store.manifests(MODEL_STAGE))
    if what is None:
        chosen: Sequence[Manifest] = models
    else:
        named = store.run(what) if NAME.fullmatch(what) else None
        runs = [named] if named else [run for run in store.runs() if what in (run.run_id, run.recipe_name)]
        made = [] if named else [manifest for manifest in models if recipe_of(manifest) == what]
        if not runs and not made:
            raise InputError(
                f"a model must be named by a recipe, a run, stage/key or a folder, and {store.url} has no run or "
                f"recipe {what!r}{_with_models(store, models)}"
            )
        used = {stage.key for run in runs for stage in run.stages if stage.stage == MODEL_STAGE and stage.key}
        chosen = made + [manifest for manifest in models if manifest.key in used and manifest not in made]
        if not chosen:
            raise InputError(_without_model(store, what, runs) + _with_models(store, models))
    if not chosen:
        raise InputError(
            f"no run in {store.url} has finished {MODEL_STAGE}; "
            f"make a model with `pile run RECIPE{store_option(store)}`"
        )
    return newest_of(store, chosen, MODEL_STAGE)


def _without_model(store: Store, what: str, runs: Sequence[Run]) -> str:
    keys = [s.key for run in runs for s in run.stages if s.stage == MODEL_STAGE and s.key]
    state = f" (it is {runs[-1].state})" if len(runs) == 1 else ""
    why = f"its {MODEL_STAGE}/{keys[-1]} was deleted" if keys else f"it has finished no {MODEL_STAGE}"
    return f"{what!r} must have a model in {store.url}, but {why}{state}"


def _with_models(store: Store, models: Sequence[Manifest]) -> str:
    newest_first = sorted(models, key=lambda manifest: manifest.finished, reverse=True)
    names = [f"{recipe_of(found) or 'no recipe'} (run {found.run_id})" for found in newest_first[:5]]
    if names:
        return f"; those with one: {', '.join(names)}"
    return f"; there is none yet, make one with `pile run RECIPE{store_option(store)}`"
