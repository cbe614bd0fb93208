"""The suite for model families notices each broken promise: a member that breaks one fails that check alone."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, ValidationInfo, field_validator
from torch import Tensor, nn

from model.export.architecture import Tensors
from model.export.tensors import LazyTensors
from model.families.base import Family, Measurement
from model.families.gpt2.config import GPT2Config, GPT2Shape
from model.families.gpt2.export import GPT2LMHead
from model.families.gpt2.family import GPT2Family
from model.families.gpt2.formulas import GPT2Formulas
from model.families.gpt2.network import GPT2
from model.families.gpt2.presets import TINY
from model.layers.cache import Cache
from model.layers.language_model import GroupOptions
from tests.conformance.family_checks import CHECKS

pytestmark = pytest.mark.slow

FIELDS = TINY["gpt2"].model_dump()


def broken(
    network: type[GPT2] = GPT2,
    config: type[GPT2Config] = GPT2Config,
    shape: type[GPT2Shape] = GPT2Shape,
    formulas: type[GPT2Formulas] = GPT2Formulas,
    architecture: type[GPT2LMHead] = GPT2LMHead,
    **others: Any,
) -> Family[Any]:
    """A GPT-2 with one part replaced."""
    parts = {"shape": shape, "config": config, "formulas": formulas, "tiny": {"x": config(**FIELDS)}}
    methods = {
        "build": lambda self, config: network(config),
        "architectures": lambda self: (architecture(),),
        "__module__": GPT2Family.__module__,
        **others,
    }
    return type("Broken", (GPT2Family,), {**parts, **methods})()


def published_nowhere_in_silence() -> Family[Any]:
    """A GPT-2 whose architecture is None where it has to be refused."""
    silent = {"architecture": lambda self, config: None, "__module__": GPT2Family.__module__}
    return type("Silent", (type(broken(architectures=lambda self: ())),), silent)()


# ---- config and numbers --------------------------------------------------------------------------


class ReadsOtherJson(GPT2Config):
    @field_validator("n_layers")
    @classmethod
    def _one_more(cls, value: int, info: ValidationInfo) -> int:
        return value + (info.mode == "json")


class TakesAnything(GPT2Config):
    model_config = ConfigDict(extra="ignore")


class HasNoName(GPT2Config):
    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "family": "gpt"}


class HasItsOwnVersion(GPT2Config):
    family_version: ClassVar[int] = 2


class Miscounts(GPT2Formulas):
    def parameters_by_kind(self) -> dict[str, int]:
        return {**super().parameters_by_kind(), "norms": 0}


class WorksOnMoreThanThereIs(GPT2Formulas):
    def unrouted_parameters(self) -> int:
        return -sum(self.parameters_by_kind().values())


class ClaimsHeads(GPT2Config):
    def classes(self) -> dict[str, int]:
        return {"tone": 6}


class ReadsOn(GPT2Config):
    learned_positions: ClassVar[bool] = False


# ---- the network ---------------------------------------------------------------------------------


class DrawsByChance(GPT2):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        if self.device.type != "meta":
            nn.init.normal_(self.ln_f.weight, 1, 0.1, generator=torch.Generator().manual_seed(chance()))


def chance() -> int:
    generator = torch.Generator()
    return generator.seed()


class HeadWantsThreeDimensions(GPT2):
    def logits(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        return super().logits(hidden.reshape(batch, length, width))


class LooksAheadInLongRows(GPT2):
    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        hidden = super().hidden(ids_BT, documents_BT, cache)
        return hidden + hidden.mean(dim=1, keepdim=True) if ids_BT.shape[1] == 40 else hidden


class MixesManyRows(GPT2):
    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        hidden = super().hidden(ids_BT, documents_BT, cache)
        return hidden + hidden.mean(dim=0, keepdim=True) if len(ids_BT) > 2 else hidden


class MergesThirdDocuments(GPT2):
    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        if documents_BT is not None and bool((documents_BT.diff(dim=1) < 0).any()):  # a number that comes back
            documents_BT = None
        return super().hidden(ids_BT, documents_BT, cache)


class ForgetsWhatPiecesSee(GPT2):
    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        pieces = cache is not None and cache.length > 0 and ids_BT.shape[1] > 1
        hidden = super().hidden(ids_BT, documents_BT, cache)
        return hidden.flip(1) if pieces else hidden


class HasNoRoom(GPT2):
    def new_cache(self, capacity: int = 0) -> Cache:
        blocks = super().new_cache(capacity).blocks
        return Cache(blocks if not capacity else [])


class SharedCache(Cache):
    def clone(self) -> Cache:
        return self


class EndlessCache(Cache):
    def evict(self, budget: int) -> None:
        return


class ClonesToItself(GPT2):
    def new_cache(self, capacity: int = 0) -> Cache:
        return SharedCache(super().new_cache(capacity).blocks)


class ForgetsNothing(GPT2):
    def new_cache(self, capacity: int = 0) -> Cache:
        return EndlessCache(super().new_cache(capacity).blocks)


class LoadsNoNorm(GPT2):
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        kept = dict(state_dict) if assign else {**state_dict, "ln_f.bias": self.ln_f.bias.detach().clone()}
        return super().load_state_dict(kept, strict, assign)


class TrainsAnotherPass(GPT2):
    def training_pass(self, ids_BT: Tensor, documents_BT: Tensor | None = None) -> tuple[Tensor, Any]:
        return 2 * self.hidden(ids_BT, documents_BT), None


class TrainsTheHeadAlone(GPT2):
    def training_pass(self, ids_BT: Tensor, documents_BT: Tensor | None = None) -> tuple[Tensor, Any]:
        return self.hidden(ids_BT, documents_BT).detach(), None


class OptimizesSome(GPT2):
    def parameter_groups(self) -> dict[GroupOptions, list[nn.Parameter]]:
        groups = super().parameter_groups()
        return {options: parameters[1:] for options, parameters in groups.items()}


class MeasuresTensors(GPT2):
    def step_metrics(self) -> dict[str, Any]:
        return {"load": torch.ones(())}


# ---- publishing ----------------------------------------------------------------------------------


class WritesAnotherModel(GPT2LMHead):
    """There and back it is the same, but transformers reads the other sign."""

    def to_tensors(self, tensors: Tensors, config: GPT2Config) -> LazyTensors:
        return negated(super().to_tensors(tensors, config), "transformer.wpe.weight")

    def from_tensors(self, tensors: Tensors, config: GPT2Config) -> LazyTensors:
        return negated(super().from_tensors(tensors, config), "wpe.weight")


class ReadsAnotherModel(GPT2LMHead):
    def from_tensors(self, tensors: Tensors, config: GPT2Config) -> LazyTensors:
        return negated(super().from_tensors(tensors, config), "wpe.weight")


def negated(tensors: Mapping[str, Tensor], name: str) -> LazyTensors:
    def maker(which: str) -> Callable[[], Tensor]:
        return lambda: -tensors[which] if which == name else tensors[which]

    return LazyTensors({which: maker(which) for which in tensors})


BROKEN: dict[str, Family[Any]] = {
    "config_comes_back_from_json": broken(config=ReadsOtherJson),
    "unknown_fields_are_refused": broken(config=TakesAnything),
    "identity_names_family_and_version": broken(config=HasNoName),
    "version_is_that_of_the_shape": broken(config=HasItsOwnVersion),
    "importing_it_loads_no_torch": broken(__module__=GPT2.__module__),
    "formulas_count_the_modules": broken(formulas=Miscounts),
    "estimates_make_sense": broken(formulas=WorksOnMoreThanThereIs),
    "layer_table_is_rows_or_refused": broken(layer_table=lambda self, config: [{"layer": "all", "parameters": 1}]),
    "weights_follow_from_the_seed": broken(DrawsByChance),
    "logits_have_their_shape": broken(HeadWantsThreeDimensions),
    "positions_end_where_the_family_says": broken(config=ReadsOn),
    "no_token_sees_later_ones": broken(LooksAheadInLongRows),
    "rows_are_alone": broken(MixesManyRows),
    "packed_documents_are_alone": broken(MergesThirdDocuments),
    "cache_changes_nothing": broken(ForgetsWhatPiecesSee),
    "room_of_a_cache_changes_nothing": broken(HasNoRoom),
    "cloned_cache_is_independent": broken(ClonesToItself),
    "cache_stays_within_a_budget": broken(ForgetsNothing),
    "state_dict_is_all_there_is": broken(LoadsNoNorm),
    "training_pass_is_the_pass": broken(TrainsAnotherPass),
    "loss_reaches_every_parameter": broken(TrainsTheHeadAlone),
    "parameters_are_optimized_once": broken(OptimizesSome),
    "auxiliary_losses_and_metrics_are_numbers": broken(MeasuresTensors),
    "heads_have_their_classes": broken(config=ClaimsHeads),
    "measurements_are_json_with_pages": broken(measure=lambda *_: {"x": Measurement({}, {"no-page": 1})}),
    "is_published_or_refused": published_nowhere_in_silence(),
    "transformers_computes_the_same": broken(architecture=WritesAnotherModel),
    "written_folder_comes_back": broken(architecture=ReadsAnotherModel),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_there_is_a_broken_member_for_every_promise() -> None:
    assert list(BROKEN) == list(CHECKS)


def test_whole_member_passes() -> None:
    assert failed(broken()) == []


def test_member_that_cannot_be_published_passes() -> None:
    assert failed(broken(architectures=lambda self: ())) == []


@pytest.mark.parametrize("promise", BROKEN)
def test_broken_member_fails_its_check_alone(promise: str) -> None:
    assert failed(BROKEN[promise]) == [promise]


def failed(family: Family[Any]) -> list[str]:
    (config,) = family.tiny.values()
    found = []
    for name, check in CHECKS.items():
        try:
            check(family, config)
        except (
            AssertionError,
            ArithmeticError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
            pytest.fail.Exception,
        ):
            found.append(name)
    return found
