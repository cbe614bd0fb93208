"""Every registry there is: the seams at which the system can be extended."""

from storage.registry import Registry, load

PLACES = (
    "flows.stages:STAGES",
    "storage.sources.registry:SOURCES",
    "storage.sources.readers.registry:READERS",
    "tasks.filter.rules.registry:RULES",
    "model.families.registry:FAMILIES",
    "model.training.engines.registry:ENGINES",
    "storage.backends.registry:BACKENDS",
)


def registries() -> dict[str, Registry[object]]:
    """Return the registries by the module that holds each."""
    return {place.partition(":")[0]: load(place) for place in PLACES}


def problems_of(name: str) -> tuple[str, ...]:
    """Return why what packages have registered under a name cannot be used, whatever the seam."""
    lines = (
        (registry, line) for registry in registries().values() for line in registry.lines if line.name == name
    )
    return tuple(str(problem) for registry, line in lines if (problem := registry.problem(line)))
