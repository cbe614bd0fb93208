"""The options of the DeepSpeed engine. Importing it loads neither torch nor DeepSpeed."""

import os
from typing import TYPE_CHECKING, Literal, Self

from model.training.engines.base import Engine, EngineConfig
from storage.errors import InputError

if TYPE_CHECKING:
    import torch

    from model.training.model_state import ModelState
    from model.training.objective import Objective


class DeepSpeedConfig(EngineConfig):
    """DeepSpeed on CPU or CUDA, in any number of processes."""

    name: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What is split over the processes: nothing, optimizer states, gradients too, parameters too."""

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return the default, and stages that split nothing and everything."""
        return cls(), cls(zero_stage=0), cls(zero_stage=3)

    def check(self, processes: int, device: str) -> None:
        """Refuse Apple's GPUs."""
        if device == "mps":
            raise InputError("the deepspeed engine needs cpu or cuda, found device 'mps'; use the local engine")

    def label(self) -> str:
        """Name the stage: gradients are summed differently in each."""
        return f"deepspeed zero-{self.zero_stage}"

    def open(
        self, objective: "Objective", device: "torch.device", folder: str, resume: "ModelState | None"
    ) -> Engine:
        """Return the engine. Raises: InputError if `auto` has come to be an Apple GPU."""
        self.check(1, device.type)
        # Without it DeepSpeed takes a GPU that it finds, whatever the job says.
        os.environ["DS_ACCELERATOR"] = device.type
        from model.training.engines.deepspeed.engine import DeepSpeedEngine  # noqa: PLC0415 - seconds, and optional

        return DeepSpeedEngine(objective, device, folder, self.zero_stage, resume)
