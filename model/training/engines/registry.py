"""The training engines by name.

A new one is a folder here with its options, a class, and a line below; or an entry point of the group
`pile_pipeline.engines` in another package.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from model.training.engines.base import EngineConfig
from storage.errors import InputError
from storage.member_checks import check_tag
from storage.registry import Registry


def check_engine(name: str, engine: Any) -> None:
    """Raise InputError unless this is a class of options that has the name in `name` and opens an engine."""
    check_tag(engine, EngineConfig, "name", name)
    if engine.open is EngineConfig.open:
        raise InputError("must define how an engine is opened, found no open")


ENGINES: Registry[type[EngineConfig]] = Registry(
    "training engine",
    "pile_pipeline.engines",
    {
        "local": "model.training.engines.local.config:LocalConfig",
        "deepspeed": "model.training.engines.deepspeed.config:DeepSpeedConfig",
    },
    check_engine,
)

DEFAULT = "local"
"""The engine that runs everywhere."""


def engine_config(name: str = DEFAULT) -> EngineConfig:
    """Return an engine's options as they come. Raises: InputError if there is none of that name."""
    return ENGINES.get(name)()  # type: ignore[call-arg]  # every member has a default for its name


def _by_name(value: Any) -> Any:
    """Read `"deepspeed"` as `{"name": "deepspeed"}`. Raises: InputError for an engine that there is not."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict) and isinstance(name := value.get("name", DEFAULT), str):
        ENGINES.get(name)
        return {"name": name, **value}
    return value


if TYPE_CHECKING:
    AnyEngine = EngineConfig
else:
    # Pydantic chooses by the field `name`; type checkers know what all share.
    AnyEngine = Annotated[
        reduce(or_, (member for _, member in ENGINES.members())),
        Field(discriminator="name"),
        BeforeValidator(_by_name),
    ]
