"""A class of transformers that models are published as: how config and weights become its, and ours again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from model.export.fields import Fields
from model.export.tensors import LazyTensors

ConfigT = TypeVar("ConfigT")

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class CardText:
    """What a model card says of an architecture."""

    sentence: str
    """Its name, as in: this is ..."""
    tags: tuple[str, ...]
    """What hubs find it by."""
    limits: tuple[str, ...]
    """What those who use it must know; `{max_seq_len:,}` and other fields of the model are filled in."""
    classify: str = ""
    """How to ask its classification heads."""


ROTARY_LIMIT = "It was trained on texts of at most {max_seq_len:,} tokens; it reads on beyond that, but worse."


@dataclass(frozen=True)
class HeadLabels:
    """What is known of the classification heads of a model that is published."""

    trained: bool = False
    """Whether they were trained."""
    token_ids: Mapping[str, int] = field(default_factory=dict)
    """The probe tokens by kind, as far as the tokenizer has them."""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the classes by kind, in the order of their numbers."""


class Architecture(ABC, Generic[ConfigT]):
    """One architecture of transformers, for the configs that it expresses.

    It promises: what transformers loads from a written folder computes the logits of our model; `read_config` and
    `from_tensors` give back the model, which is written again bit for bit.
    """

    name: ClassVar[str]
    """Name of the class."""
    model_type: ClassVar[str]
    """What config.json calls it; no other architecture of any family does."""
    tied: ClassVar[tuple[str, str]]
    """Names of head and embedding on disk, which are one tensor in a tied model."""
    card: ClassVar[CardText]

    def expresses(self, config: ConfigT) -> bool:
        """Tell whether this architecture computes exactly what such a model does."""
        return True

    def is_tied(self, config: ConfigT) -> bool:
        """Tell whether the head is the embedding."""
        return True

    @abstractmethod
    def to_tensors(self, tensors: Tensors, config: ConfigT) -> LazyTensors:
        """Return the tensors on disk from our state dict."""

    @abstractmethod
    def from_tensors(self, tensors: Tensors, config: ConfigT) -> LazyTensors:
        """Return our state dict from the tensors on disk. Raises: ValueError for those of another model."""

    @abstractmethod
    def write_config(self, config: ConfigT) -> dict[str, Any]:
        """Return config.json without token ids."""

    @abstractmethod
    def read_config(self, fields: Fields) -> ConfigT:
        """Return our config from config.json. Raises: InputError for a model that the family cannot express."""

    def code_files(self) -> dict[str, str]:
        """Return the code that a folder must bring, by file name; none for what transformers knows."""
        return {}

    def label_fields(self, config: ConfigT, labels: HeadLabels) -> dict[str, Any]:
        """Return the fields of config.json that say what the classification heads know."""
        return {}

    def has_trained_heads(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a config.json says that the classification heads were trained."""
        return False

    def closing_limits(self, config: ConfigT) -> tuple[str, ...]:
        """Return what else a model card says at its end of such a model."""
        return ()
