"""The model's own speed claims, each against the plain way in the same run: `python -m benchmarks.model --json`.

CPU time of one thread, since machines are shared; the two sides take turns and the median of the ratios counts.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.decoding import cache_ratio, decode_ratio_vs_transformers
from model.families.world.delta_rule import chunked_delta_rule, l2_normalize, recurrent_delta_rule
from model.families.world.experts import Experts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print JSON (the only form there is)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deltanet, experts = deltanet_ratio(options.repeats), experts_ratio(options.repeats)
    cache, decode = cache_ratio(), decode_ratio_vs_transformers()
    result = {
        "deltanet_ratio_vs_recurrence": deltanet["ratio"],
        "experts_ratio_vs_loop": experts["ratio"],
        "cache_ratio": cache["ratio"],
        "decode_ratio_vs_transformers": decode["ratio"],
        "details": {"deltanet": deltanet, "experts": experts, "cache": cache, "decode": decode},
        "machine": {"cores": os.cpu_count(), "threads": 1, "torch": torch.__version__},
    }
    print(json.dumps(result, indent=1))


def deltanet_ratio(repeats: int) -> dict[str, Any]:
    """Forward and backward of the delta rule over 1024 tokens, 4 heads of 64 x 64, in chunks and token by token.

    The ratio is against transformers' recurrence. Ours, which decodes single tokens, avoids that one's gradient of
    indexing, so it is quicker; the ratio against it stands beside.
    """
    from transformers.models.qwen3_next.modeling_qwen3_next import (  # noqa: PLC0415 - seconds
        torch_recurrent_gated_delta_rule,
    )

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    q, k, v = (draw(1, 1024, 4, 64) for _ in range(3))
    inputs = [l2_normalize(q), l2_normalize(k), v, -F.softplus(draw(1, 1024, 4)), draw(1, 1024, 4).sigmoid()]

    def peer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        # It scales the queries itself.
        out, state = torch_recurrent_gated_delta_rule(q * 8, k, v, g, beta, None, True, False)
        return out, state

    def run(rule: Callable[..., tuple[Tensor, Tensor]]) -> None:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out, _ = rule(*leaves)
        out.square().sum().backward()

    with torch.no_grad():
        torch.testing.assert_close(chunked_delta_rule(*inputs)[0], peer(*inputs)[0], rtol=1e-4, atol=2e-5)
    own = compare(lambda: run(chunked_delta_rule), lambda: run(recurrent_delta_rule), repeats)
    against = compare(lambda: run(chunked_delta_rule), lambda: run(peer), repeats)
    return {**against, "ratio_vs_our_recurrence": own["ratio"]}


def experts_ratio(repeats: int) -> dict[str, Any]:
    """Forward and backward of 256 experts, 42 per token, over 256 tokens: grouped, and expert by expert."""

    class Shape:
        d_model, num_experts, top_k, d_expert, n_layers = 256, 256, 42, 64, 96

    torch.manual_seed(0)
    experts = Experts(Shape())  # type: ignore[arg-type]
    x_NC = torch.randn(256, Shape.d_model)
    weights_NK, chosen_NK = torch.randn(256, Shape.num_experts).softmax(-1).topk(Shape.top_k)

    def loop(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for expert in range(Shape.num_experts):
            tokens, place = (chosen_NK == expert).nonzero(as_tuple=True)
            gate, up = F.linear(x[tokens], experts.gate_up_proj[expert]).chunk(2, dim=-1)
            out = F.linear(F.silu(gate) * up, experts.down_proj[expert])
            y = y.index_add(0, tokens, out * weights_NK[tokens, place, None])
        return y

    def run(forward: Callable[[Tensor], Tensor]) -> None:
        experts.zero_grad()
        leaf = x_NC.clone().requires_grad_()
        forward(leaf).square().sum().backward()

    with torch.no_grad():
        torch.testing.assert_close(experts(x_NC, chosen_NK, weights_NK), loop(x_NC), rtol=1e-4, atol=1e-5)
    return compare(lambda: run(lambda x: experts(x, chosen_NK, weights_NK)), lambda: run(loop), repeats)


def compare(ours: Callable[[], object], plain: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Return the median CPU seconds of both and of the ratios plain / ours, after one run to warm up."""
    ours(), plain()
    pairs = [(cpu_seconds(ours), cpu_seconds(plain)) for _ in range(repeats)]
    return {
        "ratio": round(statistics.median(theirs / mine for mine, theirs in pairs), 2),
        "seconds": round(statistics.median(mine for mine, _ in pairs), 5),
        "plain_seconds": round(statistics.median(theirs for _, theirs in pairs), 5),
        "repeats": repeats,
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that this process spends on `work`."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
