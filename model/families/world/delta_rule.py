"""The gated delta rule, a linear attention whose state is corrected by what it misses and forgets with time.

    S_t = exp(g_t) S_{t-1} + beta_t k_t (v_t - (exp(g_t) S_{t-1})^T k_t)^T          o_t = S_t^T q_t

`recurrent_delta_rule` does this token by token, `chunked_delta_rule` does many tokens in a few matrix products,
and `delta_rule` takes whichever is the fastest. All take the same arguments and return (out, state):

    q, k    (B, T, H, K)  normalized by `l2_normalize`, q scaled by K^-0.5
    v, out  (B, T, H, V)
    g       (B, T, H)     logarithm of the decay, <= 0
    beta    (B, T, H)     strength of the correction
    state   (B, H, K, V)  float32; None stands for zeros

All is computed in float32, also under autocast. Shapes below: N chunks of C tokens, M = B H.

Source: Gated Delta Networks, arXiv:2412.06464, eq. 10; the chunked form is that of DeltaNet, arXiv:2406.06484,
section 3, with the decays of section 3.3 of the former.
"""

import contextlib
import importlib
import importlib.util
import os

import torch
from torch import Tensor
from torch.nn import functional as F

_KERNEL_INSTALLED = importlib.util.find_spec("fla") is not None


def l2_normalize(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale the last dimension to length 1, in float32; `eps` is added to the squared length."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + eps)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Apply the gated delta rule in the fastest way that is at hand.

    On CUDA in half precision that is the kernel of flash-linear-attention, if it is installed; one of its versions
    refuses float32. The environment variable PILE_GDN=torch forces plain torch, which `torch.compile` needs to
    build one graph. The kernel was written against the signatures of its source and has never been run here.
    """
    if _KERNEL_INSTALLED and v.is_cuda and v.dtype != torch.float32 and os.environ.get("PILE_GDN") != "torch":
        return _kernel_delta_rule(q, k, v, g, beta, state)
    if v.shape[1] == 1:
        return recurrent_delta_rule(q, k, v, g, beta, state)
    return chunked_delta_rule(q, k, v, g, beta, state)


def recurrent_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Apply the gated delta rule one token at a time: the definition, and the cheapest way for a single token."""
    batch, length, heads, d_key = k.shape
    d_value = v.shape[-1]
    # Rows (T, M, 1, ...), taken apart by unbind: the gradient of indexing by t would cost T^2.
    parts = (q, k, v, g.float().exp(), beta)
    rows = (x.float().transpose(0, 1).reshape(length, batch * heads, 1, -1).unbind() for x in parts)
    with _no_autocast(v.device):
        S = _start(state, batch * heads, d_key, v)
        out = []
        for q_t, k_t, v_t, decay_t, beta_t in zip(*rows, strict=True):
            S = S * decay_t
            correction = beta_t * (v_t - torch.bmm(k_t, S))
            S = torch.addcmul(S, k_t.mT, correction)
            out.append(torch.bmm(q_t, S))
    o = out[0] if length == 1 else torch.cat(out, dim=1)
    o = o.view(batch, heads, length, d_value).transpose(1, 2)
    return o.to(v.dtype), S.view(batch, heads, d_key, d_value)


def chunked_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Apply the gated delta rule chunk by chunk, in matrix products.

    With G the sum of g since the start of the chunk, and D_ij = exp(G_i - G_j) for i >= j, else 0:

        u = (I + tril(beta k k^T * D, -1))^-1 beta (v - (k e^G) S)      the corrections of the chunk
        o = (q e^G) S + (q k^T * D) u
        S = e^(G_C) S + (k e^(G_C - G))^T u
    """
    batch, length, heads, d_key = k.shape
    d_value = v.shape[-1]
    # The products of a chunk grow with C, the steps of the loop with 1/C: 64 suits a GPU, where a step costs
    # launches; on a CPU 32 is 10 to 30 % faster and gains accuracy.
    size = min(64 if v.is_cuda else 32, length)
    out_dtype, device = v.dtype, v.device
    with _no_autocast(device):
        S = _start(state, batch * heads, d_key, v)
        q, k, v, g, beta = (_chunks(x, size) for x in (q, k, v, g, beta))
        # Products with ones, because cumsum of floats on CUDA is not deterministic. Each G_i - G_j is a sum of its
        # own: as a difference it would lose its digits to a border between documents that stands before both.
        lower_CC = torch.ones(size, size, dtype=torch.float32, device=device).tril()
        D = (g[..., None, :] * lower_CC) @ lower_CC.tril(-1)
        D = D.masked_fill_(lower_CC == 0, float("-inf")).exp_()
        G = g @ lower_CC.mT
        growth, beta_ = G.exp()[..., None], beta[..., None]
        inverse = _unit_lower_inverse((k * beta_) @ k.mT * D)
        chunks = (
            q * growth,
            k * (-beta_ * growth),
            v * beta_,
            inverse,
            q @ k.mT * D,
            (k * D[..., -1, :, None]).mT,
            growth[..., -1:, :],
        )
        out = []
        for q_n, minus_k_n, v_n, inverse_n, attention_n, write_n, decay_n in zip(*chunks, strict=True):
            u = torch.bmm(inverse_n, torch.baddbmm(v_n, minus_k_n, S))
            out.append(torch.baddbmm(torch.bmm(q_n, S), attention_n, u))
            S = torch.baddbmm(S * decay_n, write_n, u)
    o = torch.stack(out).view(-1, batch, heads, size, d_value).permute(1, 0, 3, 2, 4)
    o = o.reshape(batch, -1, heads, d_value)[:, :length]
    return o.to(out_dtype), S.view(batch, heads, d_key, d_value)


def _unit_lower_inverse(x: Tensor) -> Tensor:
    """Return the inverse of lower triangular matrices (..., C, C) whose diagonal is taken as 1.

    Solved from the right: for matrices in row order that is the side which LAPACK takes without a copy, and the
    product with an inverse costs a fourth of solving for every column of the values.
    """
    eye = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype).expand_as(x)
    return torch.linalg.solve_triangular(x, eye, upper=False, left=False, unitriangular=True)


def _chunks(x: Tensor, size: int) -> Tensor:
    """Cut (B, T, H, ...) into (N, M, C, ...); the zeros that fill the last chunk change no state."""
    padding = -x.shape[1] % size
    x = x.float()
    if padding:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, padding))
    return x.unflatten(1, (-1, size)).movedim((1, 3), (0, 2)).flatten(1, 2).contiguous()


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _start(state: Tensor | None, rows: int, d_key: int, v: Tensor) -> Tensor:
    d_value = v.shape[-1]
    if state is None:
        return torch.zeros(rows, d_key, d_value, device=v.device, dtype=torch.float32)
    return state.float().reshape(rows, d_key, d_value)


def _kernel_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Apply flash-linear-attention's kernels.

    Source of the arguments: fla/ops/gated_delta_rule/chunk.py and fused_recurrent.py of
    fla-org/flash-linear-attention. The recurrent kernel has no gradient.
    """
    # Not an import statement: transformers refuses custom code that imports what is not installed.
    fla = importlib.import_module("fla.ops.gated_delta_rule")
    single = v.shape[1] == 1 and not torch.is_grad_enabled()
    kernel = fla.fused_recurrent_gated_delta_rule if single else fla.chunk_gated_delta_rule
    return kernel(
        q.to(v.dtype),
        k.to(v.dtype),
        v,
        g=g.float(),
        beta=beta.float(),
        scale=1.0,
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=False,
    )
