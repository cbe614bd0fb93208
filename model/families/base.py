"""What a model family is: the protocol of the seam, and what the shapes of all families share. Loads no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from model.families.formulas import Formulas
from storage.config import Config
from storage.errors import InputError

if TYPE_CHECKING:
    from model.export.architecture import Architecture
    from model.layers.language_model import LanguageModel


class ModelShape(Config):
    """What a recipe chooses of a model. Vocabulary and length follow from the data, see `ModelConfig`.

    A family's shape adds `family: Literal["its name"] = "its name"` and its own fields.
    """

    family: str
    """Name of the family in the registry."""

    family_version: ClassVar[int] = 1
    """Raised when the family's code comes to mean something else, so that models are trained again.

    Raised at the shape, which is what a recipe and so the key of a training hold; the config inherits it."""

    learned_positions: ClassVar[bool] = False
    """Whether `max_seq_len` is a hard limit; others read on beyond it, though they were not trained there."""

    @property
    def mixes_rows(self) -> bool:
        """Whether what a row teaches depends on the rows that share its micro-batch, or on the draws made for it.

        `train.micro_batch_size` then decides the result and is part of the key; else only rounding differs.
        """
        return False

    def classes(self) -> dict[str, int]:
        """Return the kinds of the classification heads and how many classes each has; none by default.

        A head reads at the probe token of its kind, one of `storage.formats.probes.PROBE_KINDS`; messages to users
        call the field that sets its number `n_<kind>s`.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """Return what decides the result: the fields, and the family's version from 2 on.

        The first version adds nothing, so that keys from before there were versions hold.
        """
        version = {"family_version": self.family_version} if self.family_version > 1 else {}
        return {**super().identity(), **version}


class DataSizes(Config):
    """What a shape takes from the data."""

    vocab_size: int = Field(ge=1)
    """Rows of the token embedding: the tokenizer's ids and some that pad."""
    max_seq_len: int = Field(ge=2)
    """Longest sequence in tokens that the model is trained on."""


class ModelConfig(ModelShape, DataSizes):
    """A model that can be built: a family's config derives from its shape and from this."""


ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclass(frozen=True)
class Measurement:
    """What a family measures of its own on held-out documents."""

    numbers: dict[str, Any]
    """JSON that stands in metrics.json under the measurement's name."""
    pictures: dict[str, Any] = field(default_factory=dict)
    """Role of a file in the evaluate artifact -> its JSON, from which `Family.pictures` draws a page."""


@dataclass(frozen=True)
class Picture:
    """A page of the evaluation report."""

    file: str
    """Its name among the reports, as `context.html`."""
    draw: Callable[[Any], str]
    """JSON of the file -> the page."""


class Family(ABC, Generic[ConfigT]):
    """A kind of model, asked by training, estimates, publishing, evaluation and commands; nobody asks its class.

    A member is one object in a torch-free file `family.py`; it is loaded with the recipes, so what needs torch is
    named as `storage.registry.LazyFunction` or loaded in a method. It promises:

    - `shape` and `config` refuse unknown fields and come back equal from their JSON. Name, version and fields of
      the shape are part of the key of what is trained.
    - `build` returns a `LanguageModel` whose weights follow from `torch.manual_seed` alone. On the meta device its
      parameters number what `formulas` says. What such a model promises (causality, packed documents, cache,
      eviction, gradients, parameter groups) stands at `LanguageModel`.
    - Every config is published as one `Architecture`: transformers loads the folder, computes equal logits, and
      the weights come back bit for bit. A family without any cannot be published and says so.
    - `presets` are configs by a name that no other family has; `tiny` are the configs on which the conformance
      suite (`tests/conformance/test_families.py`) checks all this: small, between them every branch of the code.
    """

    name: ClassVar[str]
    """Its name in the registry, the `family` of its shapes."""
    shape: type[ModelShape]
    config: type[ConfigT]
    formulas: Callable[[ConfigT], Formulas]
    """A class of `Formulas`: numbers on paper about a config."""
    presets: Mapping[str, ConfigT] = {}
    tiny: Mapping[str, ConfigT] = {}
    pictures: Mapping[str, Picture] = {}
    """Pages by the role of the file that `measure` gave."""

    @abstractmethod
    def build(self, config: ConfigT) -> "LanguageModel":
        """Return a new model with random weights, on the default device."""

    def architectures(self) -> "tuple[Architecture[ConfigT], ...]":
        """Return how models of this family are published; of those that fit a config the first is taken."""
        return ()

    def layer_table(self, config: ConfigT) -> list[dict[str, Any]]:
        """Return `formulas.table_layers()` rows, one per layer, with the `parameters` counted on its modules.

        Raises: InputError if the family has no table.
        """
        raise InputError(f"--layers needs a family with a table of its layers, found {self.name}; leave it out")

    def measure(
        self,
        model: "LanguageModel",
        documents: Mapping[str, Sequence[list[int]]],
        token_texts: Callable[[Sequence[int]], list[str]],
    ) -> dict[str, Measurement]:
        """Return by name what only this family has to measure on held-out documents; nothing by default.

        `documents` are token ids without end-of-text, by subset; `token_texts` gives each token as text to show.
        """
        return {}

    def architecture(self, config: ConfigT) -> "Architecture[ConfigT]":
        """Return how a model is published. Raises: InputError if there is no way."""
        for architecture in self.architectures():
            if architecture.expresses(config):
                return architecture
        raise InputError(
            f"to be published a model must have an architecture that transformers loads, found one of the family "
            f"{self.name} without; add an architecture to the family"
        )


def check_shared_heads(n_heads: int, n_kv_heads: int) -> None:
    """Raise ValueError unless every key/value head serves the same number of query heads."""
    if n_heads % n_kv_heads:
        raise ValueError(
            f"n_heads must be a multiple of n_kv_heads, found {n_heads} and {n_kv_heads}; "
            f"n_kv_heads={n_heads} shares nothing, n_kv_heads=1 shares most"
        )
