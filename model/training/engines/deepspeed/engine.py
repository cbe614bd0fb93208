"""DeepSpeed with ZeRO 0 to 3: optimizer states, gradients and parameters split over processes.

Works with gloo on CPU, without a compiler. Its own checkpoints are pickles bound to a number of processes, so
they are not used: `state` gathers full tensors, which any engine and any number of processes can continue.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.model_state import MOMENTS, ModelState, model_weights
from model.training.objective import Objective
from model.training.optimizers.adamw import adamw_moments, build_optimizer, restore_adamw, set_learning_rate


class DeepSpeedEngine:
    """One process of a DeepSpeed training; started by torchrun, which sets rank and world size."""

    def __init__(
        self, objective: Objective, device: torch.device, folder: str, zero_stage: int, resume: ModelState | None
    ) -> None:
        self.device = device
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # DeepSpeed 0.19.8 calls names that torch 2.13 renames: a warning in every step.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
        # The op would be compiled by each process on first use (140 s, and a stale lock file hangs it forever).
        # A private name: the version of deepspeed is pinned, and the integration test would notice.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(
            "nccl" if self.device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/processes",  # a TCP store would listen on all interfaces
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            verbose=False,
        )
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.zero_stage = zero_stage
        self.config = deepspeed_config(objective.config, zero_stage, self.world)
        self.model = model = objective.model
        optimizer = build_optimizer(model, objective.config)  # ours: DeepSpeed's own would be compiled, too
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=objective, optimizer=optimizer, config=self.config
        )
        self._norm = torch.zeros(())
        if self.zero_stage == 0:
            self.max_grad_norm = objective.config.max_grad_norm
            self.optimizer.register_step_pre_hook(self._clip)
        self._restore(resume)

    def backward(self, batch: Batch, totals: Totals) -> Tensor:
        """Add the gradient of this batch's share of the update's loss; return its summed cross entropy."""
        loss, summed = self.engine(batch, totals)
        # DeepSpeed averages gradients over the processes; the totals already count all of them.
        self.engine.backward(loss * self.world, scale_wrt_gas=False)
        return summed.detach()

    def step(self, learning_rate: float) -> Tensor:
        """Sum and clip the gradients, update, forget them; return their norm before clipping."""
        set_learning_rate(self.optimizer, learning_rate)
        self.engine.step()
        if self.zero_stage == 0:
            return self._norm
        return torch.as_tensor(self.engine.get_global_grad_norm())

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Tensor:
        """Return the summed cross entropy of a batch of this process."""
        self.engine.eval()
        _, summed = self.engine(batch)
        self.engine.train()
        return summed

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum each value over the processes."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def state(self, step: int) -> ModelState:
        """Gather the full state, which every process returns."""
        parameters = list(self.model.named_parameters())
        if self.zero_stage == 0:
            moments = adamw_moments(self.model, self.optimizer)
        else:
            moments = {
                moment: {name: safe_get_full_optimizer_state(p, moment).cpu() for name, p in parameters}
                for moment in MOMENTS
            }
        weights = model_weights(self.model)
        if self.zero_stage == 3:
            weights |= {name: safe_get_full_fp32_param(p).cpu() for name, p in parameters}
        return ModelState(step, weights, moments)

    def settings(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration as it was used."""
        return {"deepspeed": self.config}

    def _clip(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        # Stage 0 clips without telling the norm; here the gradients are summed and not yet used.
        self._norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm, foreach=True)

    def _restore(self, resume: ModelState | None) -> None:
        if self.zero_stage == 0:
            return restore_adamw(self.model, self.optimizer, resume) if resume is not None else None
        # AdamW makes its state in its first step: too late for a checkpoint, and DeepSpeed 0.19.8, which looks
        # for the state once, after the first parameter group's first step, would miss that of the second group.
        zero = self.optimizer
        stage_3 = self.zero_stage == 3
        for shard in zero.fp32_partitioned_groups_flat if stage_3 else zero.single_partition_of_fp32_groups:
            zero.optimizer.state[shard] = {
                "step": torch.tensor(float(resume.step if resume else 0)),
                **{moment: torch.zeros_like(shard) for moment in MOMENTS},
            }
        if not stage_3:
            zero._lazy_init_hp_params_optimizer_state()
        if resume is not None:
            for name, parameter in self.model.named_parameters():
                for moment in MOMENTS:
                    self._set_moment(parameter, moment, resume.moments[moment][name].to(self.device))

    def _set_moment(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        if self.zero_stage < 3:
            return safe_set_full_optimizer_state(parameter, value, moment)
        # DeepSpeed 0.19.8's own call fails for sizes that the number of processes does not divide.
        size = -(-value.numel() // self.world)
        padded = nn.functional.pad(value.flatten(), (0, size * self.world - value.numel()))
        safe_set_local_optimizer_state(parameter, padded.narrow(0, self.rank * size, size), moment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # after an error the others are somewhere else, and torchrun ends them
            dist.barrier()
        dist.destroy_process_group()  # without it a process may end with SIGABRT


def deepspeed_config(config: TrainConfig, zero_stage: int, world: int) -> dict[str, Any]:
    """Return the complete configuration: nothing is "auto", and no default of DeepSpeed's decides a result.

    Source: measured with DeepSpeed 0.19.8, where an unknown name at the top is ignored in silence and an absent
    `gradient_clipping` means 1.0.
    """
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.global_batch_size // (config.micro_batch_size * world),
        "managed_gradient_accumulation": False,  # the loop says when a step is complete
        "gradient_clipping": config.max_grad_norm if zero_stage else 0.0,  # stage 0: _clip
        "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
        "zero_allow_untested_optimizer": False,
        "wall_clock_breakdown": False,
        "steps_per_print": 2**31,
    }
