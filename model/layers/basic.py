"""The parts that the families share: layers that draw their own weights, norms, rotary positions.

Nothing here depends on the training engine: parameters are initialized where they are created, so a model can be
built on the meta device and under `deepspeed.zero.Init`.

Shapes: B sequences, T tokens, C width of the residual stream, H heads, D head width, R rotated channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02

FEW_VECTORS = 3
"""Up to here `project` is quicker by groups of rows; from 4 on a plain product is (benchmarks/decoding.py)."""
ROW_GROUPS = 8


class Embedding(nn.Embedding):
    """A token embedding that starts with small normal values."""

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor, before an engine can partition them."""
        nn.init.normal_(self.weight, std=INIT_STD)


class Linear(nn.Linear):
    """A projection that starts with small normal values and a bias, if it has one, of zero."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = False, init_std: float = INIT_STD) -> None:
        self.init_std = init_std
        super().__init__(d_in, d_out, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor, before an engine can partition them."""
        nn.init.normal_(self.weight, std=self.init_std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., d_out) for (..., d_in)."""
        return project(x, self.weight, self.bias)


class ZeroCentredRMSNorm(nn.Module):
    """RMSNorm whose gain is 1 + weight: weight decay pulls it to 1, not to 0. Computed in float32.

    Source: `Qwen3NextRMSNorm` of transformers.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a gain of 1."""
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return F.rms_norm(x.float(), x.shape[-1:], 1.0 + self.weight.float(), self.eps).to(x.dtype)


def project(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """Return what `F.linear` does, (..., O) for (..., I), but decode faster on a CPU.

    For a vector or a few, the time goes into reading the weights, and MKL's routines for vectors and narrow
    matrices reach half of the memory's rate or less. The same product as a batch of products with groups of rows
    reaches all of it: a float32 matrix of 32,768 x 768 takes 4.5 ms instead of 8.7 (one core of an EPYC).
    """
    grouped = len(weight_OI) // ROW_GROUPS * ROW_GROUPS
    few = grouped > 0 and 0 < x.numel() <= FEW_VECTORS * x.shape[-1]
    if not few or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(x, weight_OI, bias_O)
    x_GIN = x.reshape(-1, x.shape[-1]).t().expand(ROW_GROUPS, -1, -1)
    y_GRN = torch.bmm(weight_OI[:grouped].view(ROW_GROUPS, -1, x.shape[-1]), x_GIN)
    y = y_GRN.view(grouped, -1).t().reshape(*x.shape[:-1], grouped)
    if grouped < len(weight_OI):
        y = torch.cat((y, F.linear(x, weight_OI[grouped:])), dim=-1)
    return y if bias_O is None else y + bias_O.to(y.dtype)


def residual_std(n_layers: int) -> float:
    """Spread of the projections that add to the residual stream, 2 n_layers times in all. Source: GPT-2."""
    return INIT_STD / (2 * n_layers) ** 0.5


def init_weights(model: nn.Module) -> None:
    """Draw all weights again, in the order of construction; for a model that was built on the meta device.

    The parameters must be whole, not partitioned by ZeRO-3.
    """
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def rotary_angles(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine (..., T, R) of the rotation of each of R channels at positions (..., T), in float32.

    Computed in every pass: 0.1 % of a step, while a buffer would be lost on the meta device and a cached
    tensor from `inference_mode` could not be used in training. Source: RoFormer, arXiv:2104.09864, eq. 15.
    """
    channel = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    frequency = 1.0 / theta ** (channel / width)
    angle = positions[..., None].float() * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BHTD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first R channels in pairs (i, i + R/2) by their position: Llama's pairing, not the paper's.

    Shapes: rotation is cosine and sine, (T, R) or (B, 1, T, R); channels from R on pass unchanged.
    """
    cos, sin = (part.to(x_BHTD.dtype) for part in rotation)
    width = cos.shape[-1]
    rotated, rest = x_BHTD[..., :width], x_BHTD[..., width:]
    first, second = rotated.chunk(2, dim=-1)
    rotated = rotated * cos + torch.cat((-second, first), dim=-1) * sin
    return rotated if rest.shape[-1] == 0 else torch.cat((rotated, rest), dim=-1)
