"""What a stage is: a pure function from config and artifacts to parts, with its identity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.artifacts.records import JsonDict, Part
from storage.artifacts.store import Artifact, Store
from storage.canonical import artifact_key
from storage.config import Config
from tasks.core.context import Progress
from tasks.core.execution import Execution

BuildFunction = Callable[..., Sequence[Part]]
SourceFunction = Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline: a pure function from config and artifacts to parts, with its identity."""

    name: str
    version: int
    """Raised by hand when the meaning of the code changes: artifacts of older versions are then stale."""
    config: type[Config]
    build: BuildFunction
    """`build(config, **inputs, context=StageContext) -> parts` of the finished artifact, in order."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Parameter name of `build` -> name of the stage whose artifact it receives."""
    sources: SourceFunction | None = None
    """Looks up what the stage reads from outside the store: name -> content digest."""
    retries: int = 2

    @property
    def config_field(self) -> str:
        """The field of a recipe that configures this stage."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class RunContext:
    """What all stages of one run share."""

    store: Store
    run_id: str
    recipe: JsonDict
    execution: Execution
    progress: Progress = lambda done, total, unit: None


@dataclass(frozen=True)
class StageResult:
    """An artifact and how this run came by it."""

    artifact: Artifact
    cached: bool
    seconds: float


def stage_key(stage: Stage, config: Config, inputs: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """Return the key of a stage's artifact from the content digests of what it reads."""
    read = {**{f"input:{name}": digest for name, digest in inputs.items()}, **sources}
    return artifact_key(stage.name, stage.version, config.identity(), read)
