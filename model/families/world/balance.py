"""Which experts work on a token, and how their load stays even.

Two modes. `sigmoid_bias`: independent scores, and a bias that is nudged after every step towards the experts with
too few tokens; it only takes part in the choice, so no gradient fights the language loss. `softmax_aux`:
Qwen3-Next's router, kept even by a loss. Both add a loss against growing logits; `sigmoid_bias` also adds a weak
balance loss within each sequence, which a bias common to all sequences cannot see.

Shapes: B sequences, T tokens, N = B T, C width of the residual stream, E experts, K experts per token,
L sublayers.

Source: bias, arXiv:2408.15664; balance loss, Switch Transformer, arXiv:2101.03961, eq. 4-6, per sequence in
DeepSeek-V3, arXiv:2412.19437, eq. 17-20; z-loss, ST-MoE, arXiv:2202.08906, eq. 5.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.trace import RouterTrace, Trace
from model.layers.basic import INIT_STD

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig

BALANCE_WEIGHT = {"softmax_aux": 1e-3, "sigmoid_bias": 1e-4}
"""Factor on the balance loss of each router mode."""
Z_WEIGHT = {"softmax_aux": 1e-4, "sigmoid_bias": 1e-5}
"""Factor on the z-loss of each router mode."""
MAX_LOAD = 4.0
"""Load of one expert over the mean from which on something is wrong."""
BALANCED_BY = 2000
"""Updates after which the load must be even; before, it is still being evened out."""


class Router(nn.Module):
    """Chooses `top_k` experts for each token, with weights that sum to `expert_scale`.

    Always in float32: bfloat16 logits would change the experts of 11 % of the tokens (42 of 256, width 4096).
    In training mode the choices are counted in the buffer `load` until `update_expert_biases`. Activation
    checkpointing counts a pass twice, which changes no sign and no share.
    """

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.mode = config.router
        self.top_k, self.scale = config.top_k, config.expert_scale
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.d_model))
        if self.mode == "sigmoid_bias":
            bias = torch.empty(config.num_experts, dtype=torch.float32)
            self.register_buffer("e_score_correction_bias", bias)
        self.register_buffer("load", torch.empty(config.num_experts, dtype=torch.int64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights and start without bias and load."""
        nn.init.normal_(self.weight, std=INIT_STD)
        for buffer in self.buffers(recurse=False):
            nn.init.zeros_(buffer)

    def forward(self, x_BTC: Tensor, trace: Trace | None = None) -> tuple[Tensor, Tensor]:
        """Return the experts (N, K) of each token, int64, and their weights (N, K), float32.

        Leave in `trace` what losses and metrics need. With several processes every one must then do so at the
        same time, since they add up their counts.
        """
        with _without_autocast(x_BTC.device.type):
            logits_BTE = F.linear(x_BTC.float(), self.weight.float())
            if self.mode == "sigmoid_bias":
                scores_BTE = logits_BTE.sigmoid()
                ranking_BTE = scores_BTE.detach() + self.e_score_correction_bias
            else:
                scores_BTE = logits_BTE.softmax(dim=-1)
                ranking_BTE = scores_BTE.detach()
            experts_BTK = ranking_BTE.topk(self.top_k, dim=-1).indices
            weights_BTK = scores_BTE.gather(-1, experts_BTK)
            weights_BTK = weights_BTK / (weights_BTK.sum(dim=-1, keepdim=True) + 1e-20) * self.scale

            if self.training or trace is not None:
                counts_BE = (
                    torch.zeros_like(logits_BTE, dtype=torch.bool).scatter(-1, experts_BTK, True).sum(dim=1)
                )
                if self.training:
                    self.load += counts_BE.sum(dim=0)
                if trace is not None:
                    trace.routers.append(self._trace(logits_BTE, scores_BTE, counts_BE))
        return experts_BTK.flatten(0, 1), weights_BTK.flatten(0, 1)

    def _trace(self, logits_BTE: Tensor, scores_BTE: Tensor, counts_BE: Tensor) -> RouterTrace:
        counts_E = counts_BE.sum(dim=0)
        if self.mode == "sigmoid_bias":
            balance = balance_loss(scores_BTE, counts_BE / max(scores_BTE.shape[1], 1), self.top_k)
            z = _mean(logits_BTE.square())
        else:
            scores_1NE = scores_BTE.flatten(0, 1)[None]
            balance = balance_loss(scores_1NE, _global_load(counts_E, scores_1NE.shape[1])[None], self.top_k)
            z = _mean(logits_BTE.logsumexp(dim=-1).square())
        loss = BALANCE_WEIGHT[self.mode] * balance + Z_WEIGHT[self.mode] * z
        return RouterTrace(counts_E, balance, z, loss)

    def _apply(self, fn: Any, recurse: bool = True) -> "Router":
        """Move the bias with the module but keep its float32: steps of 1e-3 would be lost in bfloat16."""
        before = self._buffers.get("e_score_correction_bias")
        super()._apply(fn, recurse)
        if before is not None and self.e_score_correction_bias.dtype != torch.float32:
            self.e_score_correction_bias = before.to(self.e_score_correction_bias.device)
        return self


def balance_loss(scores_BTE: Tensor, load_BE: Tensor, top_k: int) -> Tensor:
    """Return E / K sum_e f_e p_e, averaged over the B rows: 1 when balanced, 0 without tokens.

    f is `load_BE`, the choices of each expert per token, without gradient; p is an expert's mean score, where the
    scores of a token are made to sum to 1.
    """
    shares_BTE = scores_BTE / (scores_BTE.sum(dim=-1, keepdim=True) + 1e-20)
    shares_BE = shares_BTE.sum(dim=1) / max(shares_BTE.shape[1], 1)
    return _mean((load_BE * shares_BE).sum(dim=-1)) * load_BE.shape[-1] / top_k


def router_loss(traces: list[RouterTrace]) -> Tensor:
    """Return what to add to the language loss: the sum over the sublayers."""
    return torch.stack([trace.loss for trace in traces]).sum()


def expert_loads(model: nn.Module) -> Tensor:
    """Return the tokens that chose each expert since the last `update_expert_biases`, (L, E), int64.

    The sublayers stand in the order of `model.modules()`. The counts are those of this process: to be summed over
    processes before they are used.
    """
    return torch.stack([router.load for router in _routers(model)])


@torch.no_grad()
def update_expert_biases(model: nn.Module, loads_LE: Tensor, rate: float) -> None:
    """Move each bias towards the experts with less than the mean load and start counting again.

    Called after an optimizer step with the loads of all processes. Without bias (`softmax_aux`) only the counts
    are reset. The steps of one router sum to 0, so that its biases do not drift together.
    """
    for router, load_E in zip(_routers(model), loads_LE, strict=True):
        router.load.zero_()
        if router.mode == "sigmoid_bias":
            load_E = load_E.to(router.load.device, torch.float64)  # exact: equal loads must have the sign 0
            direction_E = (load_E.mean() - load_E).sign().float()
            router.e_score_correction_bias += rate * (direction_E - direction_E.mean())


def load_metrics(model: nn.Module, loads_LE: Tensor) -> dict[str, float]:
    """Return how even the experts' load is, for the metrics log; one number per sublayer and kind.

    `load_entropy/07` is the entropy of sublayer 7's load over log E: 1 when even. `max_load/07` is the largest
    load over the mean. `dead_experts/07` had no token. `router_bias/07` is the mean size of the bias, if there is
    one.
    """
    loads = loads_LE.double().cpu()
    share = loads / loads.sum(dim=-1, keepdim=True).clamp(min=1)
    columns = {
        "load_entropy": -torch.xlogy(share, share).sum(dim=-1) / math.log(max(share.shape[-1], 2)),
        "max_load": share.amax(dim=-1) * share.shape[-1],
        "dead_experts": (loads == 0).sum(dim=-1),
    }
    metrics = {f"{name}/{i:02d}": float(x) for name, column in columns.items() for i, x in enumerate(column)}
    for i, router in enumerate(_routers(model)):
        if router.mode == "sigmoid_bias":
            metrics[f"router_bias/{i:02d}"] = float(router.e_score_correction_bias.abs().mean())
    return metrics


def imbalance(metrics: Mapping[str, float], step: int) -> str:
    """Say which sublayers' load is so uneven that training suffers; empty if none is. Takes `load_metrics`."""
    if step < BALANCED_BY:
        return ""
    found = []
    for name, value in metrics.items():
        kind, _, layer = name.partition("/")
        if kind == "max_load" and value > MAX_LOAD:
            found.append(f"one of sublayer {layer} has {value:.1f} times the mean load")
        if kind == "dead_experts" and value > 0:
            found.append(f"{value:.0f} of sublayer {layer} had no token")
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return f"experts should share the work by now, but {'; '.join(found[:4])}{more}" if found else ""


def _routers(model: nn.Module) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def _global_load(counts_E: Tensor, tokens: int) -> Tensor:
    """Return the choices of each expert per token, over all processes."""
    sums = torch.cat((counts_E, counts_E.new_tensor([tokens])))
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
    return sums[:-1] / sums[-1].clamp(min=1)


def _mean(x: Tensor) -> Tensor:
    """Return the mean of all numbers, 0 if there are none."""
    return x.sum() / max(x.numel(), 1)


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Compute as written; the meta device knows no autocast and refuses the question."""
    known = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if known else nullcontext()
