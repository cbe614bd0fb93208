"""What a recipe runs: the stages that are on, in an order that follows from what each reads.

A stage that is off (`dedup: null`) is stepped over: who reads it gets what it passes through. A stage that
`follows` another steps in behind it: all others that read that one get its artifact instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from storage.config import Config
from storage.errors import InputError
from storage.suggestions import did_you_mean
from tasks.core.stage import Stage

ALL = "all"
"""The target of a run that takes every stage that is on."""


@dataclass(frozen=True)
class Step:
    """A stage as one recipe runs it."""

    stage: Stage
    config: Config
    inputs: Mapping[str, str]
    """Parameter of the stage's `build` -> name of the stage whose artifact it reads."""


def chain(stages: Sequence[Stage], configs: Mapping[str, Config | None], target: str = ALL) -> tuple[Step, ...]:
    """Return the target and everything it is made from, in running order; with ALL every stage that is on.

    `configs` holds the config of each stage by its name, None for one that is off.

    Raises: InputError for a target that does not exist or is off, a stage that reads what is off or not there, two
    stages that follow the same one, and stages that read each other.
    """
    line = _Line({stage.name: stage for stage in stages}, configs)
    steps = {step.stage.name: step for step in line.ordered()}
    if target == ALL:
        return tuple(steps.values())
    if target not in line.stages:
        raise InputError(
            f"a target must be {ALL} or one of {', '.join(line.stages)}, found {target!r}"
            f"{did_you_mean(target, (ALL, *line.stages))}"
        )
    if target not in steps:
        raise InputError(f"the target {target} must be on in this recipe, found it off; give it a section")
    needed = {target}
    for step in reversed(steps.values()):
        if step.stage.name in needed:
            needed.update(step.inputs.values())
    return tuple(step for name, step in steps.items() if name in needed)


class _Line:
    """The stages of one recipe and who stands behind whom."""

    def __init__(self, stages: Mapping[str, Stage], configs: Mapping[str, Config | None]) -> None:
        self.stages = stages
        self.configs = {name: config for name in stages if (config := configs.get(name)) is not None}
        self.behind: dict[str, str] = {}
        """Stage -> the one that follows it."""
        for name in self.configs:
            if followed := stages[name].follows:
                if followed not in stages[name].inputs.values():
                    raise InputError(f"{name} must read {followed}, which it follows; mend its inputs")
                if followed in self.behind:
                    raise InputError(
                        f"one stage may follow {followed}, found {self.behind[followed]} and {name}; let one "
                        f"follow the other, or switch one off"
                    )
                self.behind[followed] = name

    def ordered(self) -> Iterator[Step]:
        """Yield the stages that are on, each after what it reads, otherwise in the order of the registry."""
        done: set[str] = set()
        for name in self.configs:
            yield from self._with_inputs(name, done, ())

    def _with_inputs(self, name: str, done: set[str], above: tuple[str, ...]) -> Iterator[Step]:
        if name in above:
            raise InputError(f"stages must not read each other, found {' <- '.join((*above, name))}")
        if name in done:
            return
        stage = self.stages[name]
        inputs = {role: self._provider(stage, source) for role, source in stage.inputs.items()}
        for source in inputs.values():
            yield from self._with_inputs(source, done, (*above, name))
        done.add(name)
        yield Step(stage, self.configs[name], inputs)

    def _provider(self, reader: Stage, source: str) -> str:
        """Return the stage whose artifact a reader gets where it asks for that of `source`."""
        stepped: list[str] = []
        while True:
            if source not in self.stages:
                raise InputError(
                    f"the stage {reader.name} must read stages that there are, found {source!r}; install the "
                    f"package that brings it"
                )
            if source in stepped:
                raise InputError(f"stages must not read each other, found {' <- '.join((*stepped, source))}")
            stepped.append(source)
            behind = self.behind.get(source, reader.name)
            if behind != reader.name:
                source = behind
                continue
            if source in self.configs:
                return source
            off = self.stages[source]
            if not off.passes or reader.needs_all:
                raise InputError(
                    f"the stage {source} must be on, since {reader.name} reads what only it writes; switch it on, "
                    f"or {reader.name} off too"
                )
            source = off.inputs[off.passes]
