"""Gated DeltaNet, the D sublayers of the world family: a mixer whose memory does not grow with the text.

Parameter names, layout and results are those of transformers' `Qwen3NextGatedDeltaNet`.

Shapes: B sequences, T tokens, C d_model, K key heads, H value heads, D width of a head, X channels of the
convolution: all queries, all keys, all values.

Source: Gated Delta Networks, arXiv:2412.06464; Qwen3-Next of transformers.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.delta_rule import delta_rule, l2_normalize
from model.layers.basic import Linear, residual_std

if TYPE_CHECKING:
    from model.families.world.config import WorldConfig

BORDER_DECAY = 50.0
"""Taken from the logarithm of the decay at a document's first token: e^-50 leaves 2e-22 of the state, while an
infinite value would make the chunked form compute inf - inf."""


@dataclass
class DeltaState:
    """What a layer remembers of the text: read and replaced by `GatedDeltaNet.forward`. Its size is constant."""

    conv: Tensor | None = None
    """Last inputs of the convolution, (B, taps - 1, X)."""
    recurrent: Tensor | None = None
    """State of the delta rule, (B, H, key width, value width), float32."""

    def clone(self) -> "DeltaState":
        """Return a copy that reading more text with one of the two leaves as it is."""
        return DeltaState(
            self.conv.clone() if self.conv is not None else None,
            self.recurrent.clone() if self.recurrent is not None else None,
        )


class CausalConv(nn.Module):
    """A depthwise convolution over the last tokens; the last tap belongs to the token itself."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, taps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Conv1d` does."""
        bound = self.weight.shape[-1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x_BTX: Tensor, segments_BT: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the sums over the taps, (B, T, X), and the inputs that later tokens will see, (B, taps - 1, X).

        `before` are inputs that stand before x_BTX. Taps do not reach into another segment.
        """
        taps_KX = self.weight.float()[:, 0].mT
        reach, length = len(taps_KX) - 1, x_BTX.shape[1]
        if before is None:
            inputs = F.pad(x_BTX, (0, 0, reach, 0))
        else:
            inputs = torch.cat((before, x_BTX), dim=1)
        after = inputs[:, length:]
        if length == 1:
            return (inputs * taps_KX).sum(dim=1, keepdim=True), after
        # A sum of shifted products: as quick as F.conv1d on a CPU, and its taps can be masked.
        y_BTX = x_BTX * taps_KX[reach]
        for distance in range(1, reach + 1):
            x = inputs[:, reach - distance : reach - distance + length]
            if segments_BT is not None:
                x = x * _same_before(segments_BT, distance)
            y_BTX = torch.addcmul(y_BTX, x, taps_KX[reach - distance])
        if segments_BT is not None:
            last = F.pad(segments_BT == segments_BT[:, -1:], (reach, 0))[:, length:]
            after = after * last[..., None]
        # A copy, so that the inputs of a long text do not stay in memory.
        return y_BTX, after.clone()


class GatedRMSNorm(nn.Module):
    """RMSNorm of each head, times the SiLU of a gate. Computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a gain of 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Normalize the last dimension of x; returns the type of the gate."""
        x = F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps)
        return (x * F.silu(gate.float())).to(gate.dtype)


class GatedDeltaNet(nn.Module):
    """Convolution, gated delta rule, gated norm; no positions, the decay tells old from new."""

    def __init__(self, config: "WorldConfig") -> None:
        super().__init__()
        self.n_key_heads, self.n_value_heads = config.n_key_heads, config.n_value_heads
        self.key_dim, self.value_dim = config.key_dim, config.value_dim
        self.max_beta = 2.0 if config.allow_negative_eigenvalues else 1.0
        keys, values = config.n_key_heads * config.key_dim, config.n_value_heads * config.value_dim
        self.dt_bias = nn.Parameter(torch.empty(config.n_value_heads, dtype=torch.float32))
        self.A_log = nn.Parameter(torch.empty(config.n_value_heads, dtype=torch.float32))
        self.reset_parameters()
        self.conv1d = CausalConv(2 * keys + values, config.conv_taps)
        self.in_proj_qkvz = Linear(config.d_model, 2 * keys + 2 * values)
        self.in_proj_ba = Linear(config.d_model, 2 * config.n_value_heads)
        self.norm = GatedRMSNorm(config.value_dim, config.norm_eps)
        self.out_proj = Linear(values, config.d_model, init_std=residual_std(config.n_layers))

    def reset_parameters(self) -> None:
        """Spread the heads' decays over time scales.

        A is uniform from 0.01 to 16, the step dt log-uniform from 1e-3 to 0.1, and softplus(dt_bias) is dt.
        Source: flash-linear-attention, after Mamba.
        """
        with torch.no_grad():
            dt = self.dt_bias.uniform_(math.log(1e-3), math.log(0.1)).exp_().clamp_(min=1e-4)
            dt.add_(torch.log(-torch.expm1(-dt)))
            self.A_log.uniform_(0.01, 16).log_()

    def forward(
        self,
        x_BTC: Tensor,
        documents_BT: Tensor | None = None,
        write_gate_BTH: Tensor | None = None,
        state: DeltaState | None = None,
    ) -> Tensor:
        """Return what each token takes from those before it in its document, (B, T, C).

        `documents_BT` numbers the documents; a document ends where the number changes, and padding is one more of
        them. None: the row is one document. `write_gate_BTH`, from 0 to 1, weakens what a token writes. `state`
        continues the last document of each row and is replaced by the state after the last token.
        Raises: ValueError for document numbers together with a state that has read something.
        """
        segments_BT = None if documents_BT is None else _segments(documents_BT, state)
        q_k_v_BTX, z_BTHD, b_BTH, a_BTH = self._project(x_BTC)
        before = state.conv if state is not None else None
        q_k_v_BTX, after = self.conv1d(q_k_v_BTX, segments_BT, before)
        q, k, v = self._heads(F.silu(q_k_v_BTX))
        beta_BTH = self.max_beta * torch.sigmoid(b_BTH.float())
        if write_gate_BTH is not None:
            beta_BTH = beta_BTH * write_gate_BTH
        g_BTH = -self.A_log.float().exp() * F.softplus(a_BTH.float() + self.dt_bias)
        if segments_BT is not None:
            g_BTH = torch.where(_same_before(segments_BT, 1), g_BTH, g_BTH - BORDER_DECAY)
        recurrent = state.recurrent if state is not None else None
        o_BTHD, recurrent = delta_rule(q, k, v.to(x_BTC.dtype), g_BTH, beta_BTH, recurrent)
        if state is not None:
            state.conv, state.recurrent = after, recurrent
        return self.out_proj(self.norm(o_BTHD, z_BTHD).flatten(2))

    def _project(self, x_BTC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return queries, keys and values side by side (B, T, X), output gates (B, T, H, D), b and a (B, T, H)."""
        batch, length, _ = x_BTC.shape
        group = self.n_value_heads // self.n_key_heads
        widths = (self.key_dim, self.key_dim, group * self.value_dim, group * self.value_dim)
        # Each key head comes with the values, gates, b and a of the value heads that share it.
        by_key_head = self.in_proj_qkvz(x_BTC).view(batch, length, self.n_key_heads, -1)
        q, k, v, z = by_key_head.split(widths, dim=-1)
        b, a = self.in_proj_ba(x_BTC).view(batch, length, self.n_key_heads, -1).chunk(2, dim=-1)
        z = z.reshape(batch, length, self.n_value_heads, self.value_dim)
        return torch.cat([part.flatten(2) for part in (q, k, v)], dim=-1), z, b.flatten(2), a.flatten(2)

    def _heads(self, q_k_v_BTX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of all value heads, (B, T, H, D)."""
        batch, length, _ = q_k_v_BTX.shape
        heads, d_key = self.n_key_heads, self.key_dim
        q_k, v = q_k_v_BTX.split((2 * heads * d_key, self.n_value_heads * self.value_dim), dim=-1)
        q_k = l2_normalize(q_k.view(batch, length, 2, heads, 1, d_key))
        q_k = q_k.expand(-1, -1, -1, -1, self.n_value_heads // heads, -1)
        q, k = q_k.reshape(batch, length, 2, self.n_value_heads, d_key).unbind(2)
        return q * d_key**-0.5, k, v.view(batch, length, self.n_value_heads, self.value_dim)


def _segments(documents_BT: Tensor, state: DeltaState | None) -> Tensor:
    """Number the documents upwards, because a number may come back, as that of padding on both sides."""
    if state is not None and state.recurrent is not None:
        raise ValueError(
            "document numbers must come with the first tokens of a state, found them with a state that has read "
            "text; what is read later belongs to each row's last document, so leave them out"
        )
    return F.pad((documents_BT[:, 1:] != documents_BT[:, :-1]).cumsum(dim=1), (1, 0))


def _same_before(segments_BT: Tensor, distance: int) -> Tensor:
    """Say whether the token `distance` earlier is of the same segment, (B, T, 1); so are those before the row."""
    same = segments_BT[:, distance:] == segments_BT[:, :-distance]
    return F.pad(same, (min(distance, segments_BT.shape[1]), 0), value=True)[..., None]
