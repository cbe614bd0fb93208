"""The suite for engines notices what only several processes can do wrong: the calls marked (all)."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from model.training.engines.base import Engine, EngineConfig
from model.training.engines.local.engine import LocalEngine
from model.training.model_state import ModelState
from model.training.objective import Objective
from tests.conformance.engine_checks import (
    Member,
    evaluation_is_right,
    losses_are_those_of_plain_torch,
    norms_are_those_before_clipping,
    states_are_those_of_plain_torch,
    totals_are_summed_exactly,
)
from tests.conformance.engine_work import in_processes

CHECKS = {
    check.__name__: check
    for check in (
        losses_are_those_of_plain_torch,
        norms_are_those_before_clipping,
        states_are_those_of_plain_torch,
        evaluation_is_right,
        totals_are_summed_exactly,
    )
}
"""Those that need one training, since each starts processes anew."""


class Sharing(LocalEngine):
    """The local engine in several processes, which sum their gradients: keeps its promises."""

    def __init__(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/processes", rank=self.rank, world_size=self.world
        )
        super().__init__(objective, device, resume)

    def step(self, learning_rate: float) -> Tensor:
        for parameter in self.model.parameters():
            dist.all_reduce(parameter.grad)
        return super().step(learning_rate)

    def total(self, values: Sequence[float]) -> list[float]:
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dist.destroy_process_group()


class SumsNoGradients(Sharing):
    def step(self, learning_rate: float) -> Tensor:
        return LocalEngine.step(self, learning_rate)


class AveragesGradients(Sharing):
    def step(self, learning_rate: float) -> Tensor:
        for parameter in self.model.parameters():
            parameter.grad /= self.world
        return super().step(learning_rate)


class TotalsInFloat32(Sharing):
    def total(self, values: Sequence[float]) -> list[float]:
        summed = torch.tensor(values, dtype=torch.float32)
        dist.all_reduce(summed)
        return summed.tolist()


TRAINING = {*CHECKS} - {"totals_are_summed_exactly"}
BROKEN: dict[type[Sharing], set[str]] = {
    Sharing: set(),
    SumsNoGradients: TRAINING,
    AveragesGradients: {"norms_are_those_before_clipping"},  # clipping and AdamW forgive the rest
    TotalsInFloat32: {"totals_are_summed_exactly"},
}
"""Engine -> the checks that it fails."""


class SharingConfig(EngineConfig):
    """Its processes find the engine by its name: they import this file."""

    name: str

    def open(self, objective: Objective, device: torch.device, folder: str, resume: ModelState | None) -> Engine:
        engines = {engine.__name__: engine for engine in BROKEN}
        return engines[self.name](objective, device, folder, resume)


def member_of(engine: type[Sharing], folder: Path) -> Member:
    return Member(
        SharingConfig(name=engine.__name__), lambda work: in_processes(work, 2, folder / "work", abruptly=True), 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", BROKEN, ids=lambda engine: engine.__name__)
def test_engine_in_two_processes_fails_the_checks_of_what_it_breaks(engine: type[Sharing], tmp_path: Path) -> None:
    member = member_of(engine, tmp_path)
    failed = set()
    for name, check in CHECKS.items():
        try:
            check(member)
        except AssertionError:
            failed.add(name)
    assert failed == BROKEN[engine]
