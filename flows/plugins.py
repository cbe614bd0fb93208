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
