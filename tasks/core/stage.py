"""What a stage is: a pure function from config and artifacts to parts, with its identity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.artifacts.records import InputRef, JsonDict, Part
from storage.artifacts.store import Artifact, Store
from storage.canonical import artifact_key
from storage.config import Config
from tasks.core.context import Progress, nobody_watches
from tasks.core.execution import Execution

BuildFunction = Callable[..., Sequence[Part]]
SourceFunction = Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline: a pure function from config and artifacts to parts, with its identity.

    To add one: a folder with a `stage.py` that holds such an object and imports nothing heavy, a `config.py`, a
    `build.py` that does the work, and a line in flows/stages.py or an entry point of the group
    `pile_pipeline.stages`. A recipe then has a section of its name.

    What a stage promises: the same config, inputs and sources give the same content, whatever machine, number of
    workers or earlier attempt; work is committed part by part and a part that is committed is not done again;
    nothing is read but the inputs and what `sources` lists.
    """

    name: str
    """Its name in the registry: words with hyphens; the recipe's section has underscores instead."""
    version: int
    """Raised by hand when the meaning of the code changes: artifacts of older versions are then stale."""
    config: type[Config]
    """Its section of a recipe. Every field is part of the key but those in `excluded_from_key`."""
    build: BuildFunction
    """`build(config, **inputs, context=StageContext) -> parts` of the finished artifact, in order.

    It asks `context.finished_parts` what is committed already, writes what is not below `context.writer.scratch()`
    and commits each part with `context.writer` once it is whole; CONTRIBUTING.md names examples to copy.
    A `LazyFunction` where its module imports what planning does not need."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Parameter name of `build` -> name of the stage whose artifact it receives."""
    sources: SourceFunction | None = None
    """Looks up what the stage reads from outside the store: name -> content digest."""
    retries: int = 2
    passes: str = ""
    """The input that its readers get when it is off in a recipe; without one it is off only if none reads it."""
    needs_all: bool = False
    """It reads of its inputs what only they write, so that none of them can be off."""
    follows: str = ""
    """The stage behind which it steps in: all others that read that one then read this one's artifact."""
    is_default: bool = True
    """Whether a recipe that does not mention it has it; one of another package is better asked for."""
    check: Callable[[Any], None] | None = None
    """Raises ValueError for a section that its config alone could not refuse: what other stages know decides."""
    foresee: Callable[[Any, Mapping[str, Artifact]], None] | None = None
    """Raises InputError for inputs that it could not use, given by name those that exist so far.

    Called by plans, and by a run as soon as an input is there: what stands between is then not built in vain. It
    looks at counts and parts, not at everything; a `LazyFunction` where it imports what planning does not need."""
    describe_attempt: Callable[[JsonDict, Sequence[str]], str] | None = None
    """Says how far an unfinished attempt came, from its config and the names of its parts: `step 120 of 400`."""
    quotes_inputs: bool = False
    """Its result says how its inputs were made and what from, so that their keys are part of its own."""
    highlight: bool = False
    """Whether its tables are what people look for first after a run."""
    result: str = ""
    """The part that people take away as a folder, shown with its place at the end of a run; always written."""

    @property
    def config_field(self) -> str:
        """The field of a recipe that configures this stage."""
        return self.name.replace("-", "_")


def attempt_progress(stage: Stage, config: JsonDict, parts: Sequence[str]) -> str:
    """Say how far an unfinished attempt at a stage came, in its own words or in parts."""
    if stage.describe_attempt is not None:
        return stage.describe_attempt(config, parts)
    return f"{len(parts)} part{'' if len(parts) == 1 else 's'} done"


@dataclass(frozen=True)
class RunContext:
    """What all stages of one run share."""

    store: Store
    run_id: str
    recipe: JsonDict
    execution: Execution
    progress: Progress = nobody_watches


@dataclass(frozen=True)
class StageResult:
    """An artifact and how this run came by it."""

    artifact: Artifact
    cached: bool
    seconds: float


def input_identity(stage: Stage, inputs: Mapping[str, InputRef]) -> dict[str, str]:
    """Return what of its inputs is part of a stage's key: content digests by name, and their keys if quoted."""
    identity = {name: read.content_digest for name, read in inputs.items()}
    if stage.quotes_inputs:
        identity |= {f"{name}.key": read.key for name, read in inputs.items()}
    return identity


def stage_key(stage: Stage, config: Config, inputs: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """Return the key of a stage's artifact from the `input_identity` and the digests of its sources."""
    read = {**{f"input:{name}": digest for name, digest in inputs.items()}, **sources}
    return artifact_key(stage.name, stage.version, config.identity(), read)
