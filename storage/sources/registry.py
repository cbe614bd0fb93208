"""The sources that a recipe can name in `download.source.kind`.

A package adds one with an entry point of the group `pile_pipeline.sources`, named as its kind.
"""

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from storage.member_checks import check_class, check_tag, check_version
from storage.registry import Registry
from storage.sources.base import Source, SourceConfig


def check_source(name: str, source: Any) -> None:
    """Raise InputError unless this is a class of sources whose config has the name in `kind`."""
    check_class(source, Source)
    check_tag(source.config_type, SourceConfig, "kind", name)
    check_version(source.config_type.version)


SOURCES: Registry[type[Source[Any]]] = Registry(
    "source",
    "pile_pipeline.sources",
    {
        "mirror": "storage.sources.mirror.source:MirrorSource",
        "files": "storage.sources.files:FilesSource",
        "python-environment": "storage.sources.python_environment.source:PythonEnvironmentSource",
    },
    check_source,
)


def make_source(config: SourceConfig) -> Source[Any]:
    """Return the source that a config describes. Raises: InputError."""
    return SOURCES.get(config.kind)(config)


def source_config(kind: str, **fields: Any) -> SourceConfig:
    """Return the config of a source by its kind. Raises: InputError for an unknown one, ValidationError."""
    return SOURCES.get(kind).config_type.model_validate({"kind": kind, **fields})


class _AnyOfRegistry:
    """Makes the type of a field the union of all registered configs, told apart by `kind`."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        configs = [source.config_type for _, source in SOURCES.members()]
        return handler.generate_schema(Annotated[reduce(or_, configs), Field(discriminator="kind")])


AnySourceConfig = Annotated[SourceConfig, _AnyOfRegistry()]
"""The type of `download.source`: built from the registry when a config class with such a field is made."""
