"""The world family: Gated DeltaNet, gated attention, experts, the Eisenhower context layer, two heads."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model.families.base import Family, Measurement, Picture
from model.families.world.config import WorldConfig, WorldShape
from model.families.world.formulas import WorldFormulas
from model.families.world.presets import PRESETS, TINY
from storage.registry import LazyFunction, load

if TYPE_CHECKING:
    from model.export.architecture import Architecture
    from model.layers.language_model import LanguageModel

NETWORK = "model.families.world.network:WorldModel"
ARCHITECTURES = "model.families.world.export.architectures:ARCHITECTURES"
LAYER_TABLE = "model.families.world.measurements.layer_table:layer_rows"
MEASURE_CONTEXT = "model.families.world.measurements.context:measure_context"
CONTEXT_PAGE = "model.families.world.measurements.picture:context_page"

PICTURE = "context-picture"
"""Role of the data behind context.html in an evaluate artifact."""


class WorldFamily(Family[WorldConfig]):
    """The member of the registry."""

    name = "world"
    shape = WorldShape
    config = WorldConfig
    formulas = WorldFormulas
    presets = PRESETS
    tiny = TINY
    pictures: Mapping[str, Picture] = {PICTURE: Picture("context.html", LazyFunction(CONTEXT_PAGE))}

    def build(self, config: WorldConfig) -> "LanguageModel":
        """Return a new model."""
        model: LanguageModel = load(NETWORK)(config)
        return model

    def architectures(self) -> "tuple[Architecture[WorldConfig], ...]":
        """Return Qwen3-Next for what it can express, our own code for the rest."""
        found: tuple[Architecture[WorldConfig], ...] = load(ARCHITECTURES)
        return found

    def layer_table(self, config: WorldConfig) -> list[dict[str, Any]]:
        """Return the sublayers and the 5 layers around them."""
        rows: list[dict[str, Any]] = load(LAYER_TABLE)(config)
        return rows

    def measure(
        self,
        model: "LanguageModel",
        documents: Mapping[str, Sequence[list[int]]],
        token_texts: Callable[[Sequence[int]], list[str]],
    ) -> dict[str, Measurement]:
        """Return what the context layers predict and do, if there are any."""
        if not model.config.context_rank:
            return {}
        numbers, picture = load(MEASURE_CONTEXT)(model, documents, token_texts)
        return {"context": Measurement(numbers, {PICTURE: picture})}


FAMILY = WorldFamily()
