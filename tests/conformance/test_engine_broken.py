"""The suite for engines notices each broken promise: a member that breaks one fails the checks of that promise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from model.training.batch import Batch, Totals
from model.training.engines.base import Engine, EngineConfig
from model.training.engines.local.engine import LocalEngine
from model.training.model_state import ModelState
from model.training.objective import Objective
from storage.errors import InputError
from tests.conformance.engine_checks import CHECKS, Member
from tests.conformance.engine_work import do


class CountsWrong(LocalEngine):
    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        return super().backward(batch, totals) * 1.001


class TellsTheClippedNorm(LocalEngine):
    def step(self, learning_rate: float) -> Tensor:
        return super().step(learning_rate).clamp_max(self.max_grad_norm)


class TellsStaleMoments(LocalEngine):
    def state(self, step: int) -> ModelState:
        state = super().state(step)
        return ModelState(step - 1, state.weights, state.moments) if step == 1 else state


class RoundsMicroBatches(LocalEngine):
    """Adds a little per micro-batch of the usual size, too little for the losses of plain torch to differ."""

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        summed = super().backward(batch, totals)
        return summed + (1.0 if len(batch.inputs) > 2 else 0.0)


class ForgetsALittle(LocalEngine):
    def __init__(self, objective: Objective, device: torch.device, resume: ModelState | None) -> None:
        super().__init__(objective, device, resume)
        if resume is not None:
            with torch.no_grad():
                self.model.gain.weight.mul_(1 + 1e-7)


class OnlyKnowsItsOwnStates(LocalEngine):
    own: ClassVar[set[float]] = set()

    def __init__(self, objective: Objective, device: torch.device, resume: ModelState | None) -> None:
        if resume is not None and self._mark(resume) not in self.own:
            resume = None
        super().__init__(objective, device, resume)

    def state(self, step: int) -> ModelState:
        state = super().state(step)
        self.own.add(self._mark(state))
        return state

    def _mark(self, state: ModelState) -> float:
        return float(state.moments["exp_avg_sq"]["head.weight"].double().sum())


class EvaluatesTheMean(LocalEngine):
    def evaluate(self, batch: Batch) -> Tensor:
        return super().evaluate(batch) / batch.tokens


class StaysInEvalMode(LocalEngine):
    def evaluate(self, batch: Batch) -> Tensor:
        summed = super().evaluate(batch)
        self.objective.eval()
        return summed


class KeepsTheGraph(LocalEngine):
    def evaluate(self, batch: Batch) -> Tensor:
        self.objective.eval()
        with torch.enable_grad():
            _, summed = self.objective(batch)
        self.objective.train()
        return summed


class TotalsInFloat32(LocalEngine):
    def total(self, values: Sequence[float]) -> list[float]:
        return torch.tensor(values, dtype=torch.float32).tolist()


class TellsTensors(LocalEngine):
    def settings(self) -> dict[str, Any]:
        return {"norm": (1, 2)}


class SwallowsErrors(LocalEngine):
    def __exit__(self, kind: object, error: object, trace: object) -> bool:  # type: ignore[override]
        return True


class AveragesMicroBatches(LocalEngine):
    """Trains with the mean gradient of the micro-batches, as gradient accumulation is often written."""

    count = 0

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        self.count += 1
        return super().backward(batch, totals)

    def step(self, learning_rate: float) -> Tensor:
        for parameter in self.model.parameters():
            parameter.grad /= self.count
        self.count = 0
        return super().step(learning_rate)


class DoesNotClip(LocalEngine):
    def step(self, learning_rate: float) -> Tensor:
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.model.parameters()])
        self.max_grad_norm = 1e9
        super().step(learning_rate)
        return norm


LOSSES, STATES = "losses_are_those_of_plain_torch", "states_are_those_of_plain_torch"
MICRO, OTHER = "micro_batches_do_not_matter", "state_of_another_engine_is_continued"
NORMS, SAME, EVALUATION = (
    "norms_are_those_before_clipping",
    "continued_training_gives_the_same_bits",
    "evaluation_is_right",
)

BROKEN: dict[type[LocalEngine], set[str]] = {
    CountsWrong: {LOSSES, OTHER},
    TellsTheClippedNorm: {NORMS},
    TellsStaleMoments: {STATES},
    RoundsMicroBatches: {MICRO},
    ForgetsALittle: {SAME},
    OnlyKnowsItsOwnStates: {OTHER},
    EvaluatesTheMean: {EVALUATION},
    StaysInEvalMode: {"evaluation_leaves_nothing"},
    KeepsTheGraph: {"evaluation_leaves_nothing"},
    TotalsInFloat32: {"totals_are_summed_exactly"},
    TellsTensors: {"settings_are_json"},
    SwallowsErrors: {"error_ends_the_processes_as_it_is"},
    # What is trained differently shows in all that follows from it.
    AveragesMicroBatches: {LOSSES, NORMS, STATES, MICRO, OTHER, EVALUATION},
    DoesNotClip: {LOSSES, NORMS, STATES, OTHER, EVALUATION},
}
"""Broken engine -> the checks that it fails."""


class ForgetsItsName(EngineConfig):
    name: str

    @classmethod
    def examples(cls) -> tuple["ForgetsItsName", ...]:
        return (cls(name="broken"),)

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        return LocalEngine(objective, device, resume)


class Unlabelled(EngineConfig):
    name: Literal["broken"] = "broken"

    def label(self) -> str:
        return "local"

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        return LocalEngine(objective, device, resume)


class Unoptioned(EngineConfig):
    name: Literal["broken"] = "broken"
    order: Literal[0, 1] = 0

    @classmethod
    def examples(cls) -> tuple["Unoptioned", ...]:
        return cls(), cls(order=1)

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        return LocalEngine(objective, device, resume)


class ChecksOnlyBefore(EngineConfig):
    name: Literal["broken"] = "broken"

    def check(self, processes: int, device: str) -> None:
        if device == "mps":
            raise InputError("the broken engine needs cpu or cuda, found device 'mps'")

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        return LocalEngine(objective, torch.device("cpu"), resume)


BROKEN_OPTIONS: dict[EngineConfig, str] = {
    ForgetsItsName(name="broken"): "options_survive_json",
    Unlabelled(): "label_tells_the_engine",
    Unoptioned(): "label_tells_the_options",
    ChecksOnlyBefore(): "device_that_it_cannot_use_is_refused",
}
"""Options of a broken engine -> the check that they fail."""


def options_of(engine: type[LocalEngine]) -> EngineConfig:
    class BrokenConfig(EngineConfig):
        name: Literal["broken"] = "broken"

        def open(
            self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None
        ) -> Engine:
            return engine(objective, device, resume)

    return BrokenConfig()


def failed_checks(config: EngineConfig, folder: Path) -> set[str]:
    member = Member(config, lambda work: do(work, folder))
    failed = set()
    for name, check in CHECKS.items():
        try:
            check(member)
        except (AssertionError, ValueError, pytest.fail.Exception):
            failed.add(name)
    return failed


@pytest.mark.parametrize("engine", BROKEN, ids=lambda engine: engine.__name__)
def test_broken_engine_fails_the_checks_of_its_promise_alone(engine: type[LocalEngine], tmp_path: Path) -> None:
    assert failed_checks(options_of(engine), tmp_path) == BROKEN[engine]


@pytest.mark.parametrize("config", BROKEN_OPTIONS, ids=lambda config: type(config).__name__)
def test_broken_options_fail_the_check_of_their_promise_alone(config: EngineConfig, tmp_path: Path) -> None:
    assert failed_checks(config, tmp_path) == {BROKEN_OPTIONS[config]}


def test_every_check_is_failed_by_some_member() -> None:
    assert set().union(*BROKEN.values(), BROKEN_OPTIONS.values()) == {*CHECKS}
