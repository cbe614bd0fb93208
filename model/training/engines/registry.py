"""The training engines by name."""

import os
from typing import TYPE_CHECKING

from model.layers.device import choose_device
from model.training.config import TrainingJob

if TYPE_CHECKING:
    from model.training.objective import Objective
from model.training.engines.base import Engine
from model.training.model_state import ModelState


def open_engine(job: TrainingJob, objective: "Objective", resume: ModelState | None) -> Engine:
    """Return the engine of the job, around a model that already has its weights.

    Raises: InputError if this machine cannot run it.
    """
    if job.engine == "deepspeed":
        # Without it DeepSpeed takes a GPU that it finds, whatever the job says.
        os.environ["DS_ACCELERATOR"] = choose_device(job.device).type
        from model.training.engines.deepspeed import DeepSpeedEngine  # noqa: PLC0415 - seconds, and optional

        return DeepSpeedEngine(job, objective, resume)
    from model.training.engines.local import LocalEngine  # noqa: PLC0415 - it imports this module

    return LocalEngine(objective, choose_device(job.device), resume)
