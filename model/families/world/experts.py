"""A mixture of experts: many small feed-forward blocks of which each token uses a few, and one that all share.

Equal to transformers' `Qwen3NextSparseMoeBlock` in the mode `softmax_aux`, names of the parameters included, when
`route_scale` is folded into `experts.down_proj`. No token is dropped and no expert has a capacity: the
(token, expert) pairs are sorted by expert and multiplied in groups of any size, also of none.

Shapes: B sequences, T tokens, N = B T, C width of the residual stream, E experts, K experts per token, P = N K
pairs sorted by expert, F width inside an expert.

Source: SwiGLU, arXiv:2002.05202; sorted groups, MegaBlocks, arXiv:2211.15841.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.balance import Router
from model.families.world.trace import Trace
from model.layers.basic import INIT_STD, Linear, residual_std

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig

GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class MixtureOfExperts(nn.Module):
    """The feed-forward half of a sublayer: the sum of the routed experts and of the gated shared one."""

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_expert = SharedExpert(config)
        self.shared_expert_gate = Linear(config.d_model, 1)

    def forward(self, x_BTC: Tensor, trace: Trace | None = None) -> Tensor:
        """Return (B, T, C). The router leaves in `trace` what losses and metrics need."""
        experts_NK, weights_NK = self.gate(x_BTC, trace)
        routed_NC = self.experts(x_BTC.flatten(0, 1), experts_NK, weights_NK)
        shared_BTC = self.shared_expert_gate(x_BTC).sigmoid() * self.shared_expert(x_BTC)
        return routed_NC.view_as(shared_BTC) + shared_BTC


class SharedExpert(nn.Module):
    """A SwiGLU block that works on every token."""

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.gate_proj = Linear(config.d_model, config.d_shared)
        self.up_proj = Linear(config.d_model, config.d_shared)
        self.down_proj = Linear(config.d_shared, config.d_model, init_std=residual_std(config.n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """The routed experts, SwiGLU blocks in two stacks: (E, 2 F, C), the gates before the ups, and (E, C, F)."""

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.down_std = residual_std(config.n_layers)
        self.gate_up_proj = nn.Parameter(torch.empty(config.num_experts, 2 * config.d_expert, config.d_model))
        self.down_proj = nn.Parameter(torch.empty(config.num_experts, config.d_model, config.d_expert))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.gate_up_proj, std=INIT_STD)
        nn.init.normal_(self.down_proj, std=self.down_std)

    def forward(self, x_NC: Tensor, experts_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Return the weighted sum of the experts of each token, (N, C).

        Computed in the type of x or, under autocast, in autocast's.
        """
        dtype = _compute_dtype(x_NC)
        sorted_P, order_P = experts_NK.flatten().sort(stable=True)
        places_NK = order_P.argsort().view_as(experts_NK)
        ids_E = torch.arange(len(self.down_proj), device=x_NC.device)
        ends_E = torch.searchsorted(sorted_P, ids_E, right=True, out_int32=True)

        x_PC = _Spread.apply(x_NC.to(dtype), order_P // experts_NK.shape[1], places_NK)
        weights_P1 = _Spread.apply(weights_NK.to(dtype).view(-1, 1), order_P, places_NK.view(-1, 1))
        compute = self._method(dtype)
        y_PC = compute(x_PC, weights_P1, ends_E, self.gate_up_proj.to(dtype), self.down_proj.to(dtype))
        return _Collect.apply(y_PC, order_P // experts_NK.shape[1], places_NK)

    def _method(self, dtype: torch.dtype) -> Callable[..., Tensor]:
        """Return `_grouped` where `grouped_mm` is there and takes the type and rows of a multiple of 16 bytes."""
        aligned = all(width * dtype.itemsize % 16 == 0 for width in self.down_proj.shape[1:])
        method = _grouped if aligned and dtype in GROUPED_DTYPES and hasattr(F, "grouped_mm") else _looped
        if torch.compiler.is_compiling() and (method is _looped or dtype != torch.bfloat16):
            return torch.compiler.disable(method)  # torch 2.13 compiles grouped_mm in bfloat16 only
        return method


def _grouped(x_PC: Tensor, weights_P1: Tensor, ends_E: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Apply to each run of rows, of which `ends_E` are the ends, the weights of its expert."""
    gate_PF, up_PF = _GroupedLinear.apply(x_PC, gate_up, ends_E).chunk(2, dim=-1)
    return _GroupedLinear.apply(F.silu(gate_PF) * up_PF * weights_P1, down, ends_E)


def _looped(x_PC: Tensor, weights_P1: Tensor, ends_E: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """As `_grouped`, one expert after the other.

    The stacks are unbound, not indexed: the gradient of an index would be as large as the whole stack, E times.
    """
    sizes = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    runs = zip(x_PC.split(sizes), weights_P1.split(sizes), gate_up.unbind(0), down.unbind(0), strict=True)
    y = []
    for x, weights, gate_up_e, down_e in runs:
        if len(x) or not len(x_PC):  # without any token all take part, so that the stacks have a gradient
            gate, up = F.linear(x, gate_up_e).chunk(2, dim=-1)
            y.append(F.linear(F.silu(gate) * up * weights, down_e))
    return torch.cat(y)


class _GroupedLinear(torch.autograd.Function):
    """Maps each run of rows (P, I) by its matrix of a stack (E, O, I) to (P, O).

    Autograd's own gradient of `grouped_mm` keeps a view of the stack until backward, and with it the memory that
    ZeRO-3 gathers and means to free after forward. A parameter itself is not kept but gathered again.
    """

    @staticmethod
    def forward(ctx: Any, x_PI: Tensor, stack_EOI: Tensor, ends_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_PI, stack_EOI, ends_E)
        return F.grouped_mm(x_PI, stack_EOI.transpose(1, 2), offs=ends_E)

    @staticmethod
    def backward(ctx: Any, grad_PO: Tensor) -> Any:
        x_PI, stack_EOI, ends_E = ctx.saved_tensors
        grad_x = F.grouped_mm(grad_PO, stack_EOI, offs=ends_E)
        return grad_x, F.grouped_mm(grad_PO.t(), x_PI, offs=ends_E), None


class _Spread(torch.autograd.Function):
    """Copies the row of each token to the places of its pairs; the gradient is `_Collect`.

    The gradient of plain indexing would add rows in any order, or slowly: it cannot know that each is met K times.
    """

    @staticmethod
    def forward(ctx: Any, rows_N: Tensor, tokens_P: Tensor, places_NK: Tensor) -> Tensor:
        ctx.save_for_backward(tokens_P, places_NK)
        return rows_N[tokens_P]

    @staticmethod
    def backward(ctx: Any, grad_P: Tensor) -> Any:
        return _Collect.apply(grad_P, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """Sums the rows of each token's pairs; the gradient is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, rows_P: Tensor, tokens_P: Tensor, places_NK: Tensor) -> Tensor:
        ctx.save_for_backward(tokens_P, places_NK)
        return F.embedding_bag(places_NK, rows_P, mode="sum")  # 16 times as quick as rows_P[places_NK].sum(1)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> Any:
        return _Spread.apply(grad_N, *ctx.saved_tensors), None, None


def _compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which a linear layer would compute; autocast does not know `grouped_mm`."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype
