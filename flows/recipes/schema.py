"""What a recipe is: a section for each stage, and where the work runs."""

from functools import cache
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, create_model, model_validator

from flows.chain import ALL, Step, chain
from flows.stages import STAGES, all_stages
from storage.config import Config
from storage.errors import InputError
from tasks.core.execution import Execution
from tasks.core.stage import Stage

ConfigT = TypeVar("ConfigT", bound=Config)


class Recipe(Config):
    """A section for each stage, by the name of the stage; one that is null is off. And where the work runs."""

    name: str
    """Runs of one name are compared with each other by `pile plan` and kept together by `pile gc`."""
    description: str = ""
    execution: Execution = Execution()

    def steps(self, target: str = ALL) -> tuple[Step, ...]:
        """Return what is run for a target, in order. Raises: InputError if that cannot be."""
        if target != ALL and target in STAGES.names():
            STAGES.get(target)  # says why, if it cannot be used
        stages = all_stages()
        sections = dict(self)
        return chain(stages, {stage.name: sections.get(stage.config_field) for stage in stages}, target)

    def section(self, config: type[ConfigT]) -> ConfigT:
        """Return the section of a type. Raises: InputError if that stage is off."""
        for value in dict(self).values():
            if isinstance(value, config):
                return value
        name = next(stage.config_field for stage in all_stages() if issubclass(stage.config, config))
        raise InputError(f"the recipe {self.name!r} must have the section {name}, found it off; switch it on")

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        for stage in all_stages():
            section = dict(self).get(stage.config_field)
            if stage.check is not None and section is not None:
                stage.check(section)
        return self


@cache
def recipe_type() -> type[Recipe]:
    """Return the type of recipes: one with a section for every stage, those of other packages included."""
    sections: dict[str, Any] = {stage.config_field: _section(stage) for stage in all_stages()}
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **sections)


def make_recipe(**fields: Any) -> Recipe:
    """Return a recipe with these fields. Raises: pydantic's ValidationError."""
    return recipe_type()(**fields)


def _section(stage: Stage) -> tuple[Any, Any]:
    about = (stage.config.__doc__ or "").partition("\n")[0]
    if not stage.is_default:
        return stage.config | None, Field(default=None, description=about)
    try:
        return stage.config | None, Field(default=stage.config(), description=about)
    except ValidationError:  # there is something that only a recipe can say
        return stage.config | None, Field(description=about)
