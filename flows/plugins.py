"""Every registry there is: the seams at which the system can be extended."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from storage.config import Config
from storage.registry import Registry, load

REGISTRIES = (
    "flows.stages:STAGES",
    "storage.sources.registry:SOURCES",
    "storage.sources.readers.registry:READERS",
    "tasks.filter.rules.registry:RULES",
    "model.families.registry:FAMILIES",
    "model.training.engines.registry:ENGINES",
    "storage.backends.registry:BACKENDS",
)


CONFIGS: dict[str, Callable[[Any], type[Config]]] = {
    "flows.stages": attrgetter("config"),
    "storage.sources.registry": attrgetter("config_type"),
    "tasks.filter.rules.registry": attrgetter("config_type"),
    "model.families.registry": attrgetter("shape"),
    "model.training.engines.registry": lambda engine: engine,
}
"""How to ask a member for what a recipe can choose of it; members of the other seams have nothing to choose."""


def registries() -> dict[str, Registry[object]]:
    """Return the registries by the module that holds each."""
    return {reference.partition(":")[0]: load(reference) for reference in REGISTRIES}


def problems_of(name: str) -> tuple[str, ...]:
    """Return why what packages have registered under a name cannot be used, whatever the seam."""
    lines = (
        (registry, line) for registry in registries().values() for line in registry.lines if line.name == name
    )
    return tuple(str(problem) for registry, line in lines if (problem := registry.problem(line)))
