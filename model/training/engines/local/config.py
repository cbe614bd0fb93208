"""The local engine as a recipe names it. Importing it loads no torch."""

from typing import TYPE_CHECKING, Literal

from model.training.engines.base import Engine, EngineConfig
from storage.errors import InputError

if TYPE_CHECKING:
    import torch

    from model.training.model_state import ModelState
    from model.training.objective import Objective


class LocalConfig(EngineConfig):
    """Plain torch in one process, on CPU, one GPU or Apple's MPS. Nothing to choose."""

    name: Literal["local"] = "local"

    def check(self, processes: int, device: str) -> None:
        """Refuse several processes."""
        if processes > 1:
            raise InputError(
                f"the local engine trains in one process, found processes={processes}; "
                f"use an engine that trains in several (`pile plugins` lists them) or processes=1"
            )

    def open(
        self, objective: "Objective", device: "torch.device", folder: str, resume: "ModelState | None"
    ) -> Engine:
        """Return the engine."""
        from model.training.engines.local.engine import LocalEngine  # noqa: PLC0415 - torch

        return LocalEngine(objective, device, resume)
