"""Compile a training step of every family without graph breaks and time it: `python -m benchmarks.gpu_models`.

Each model's whole objective, forward and backward, runs compiled in one graph (`fullgraph=True`) under bfloat16
autocast, packed documents and auxiliary losses included. Prints JSON: compile seconds, tokens per second, peak
memory, MFU where the card's peak is known, and how far the compiled loss is from the eager one. `--write` puts it
under benchmarks/results/ with date and device.

Without a CUDA device nothing is timed and it says so; the graphs are still captured on the CPU with the backend
`aot_eager`, which shows graph breaks but no speed.
"""

import argparse
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("PILE_GDN", "torch")  # flash-linear-attention's kernels are no part of one graph

import torch

from model.families.base import ModelConfig
from model.families.estimate import count_parameters, training_flops_per_token
from model.families.presets import PRESETS
from model.families.registry import build_model
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.objective import Objective
from storage.config import changed

MODELS = {"gpt2-124m": 16, "tatar-23m": 64, "world-20m": 8, "hybrid-20m": 8, "world-800m": 1}
"""Presets and the sequences of a step that an 80 GB card holds."""

ONE_BLOCK = {"n_superblocks": 1, "d_model": 64, "num_experts": 4, "top_k": 2, "d_expert": 32, "d_shared": 32}
SMALLER = {"world-20m": ONE_BLOCK, "hybrid-20m": ONE_BLOCK, "world-800m": ONE_BLOCK}
"""What makes a large preset quick to capture."""

PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""Dense bfloat16. Source: NVIDIA's data sheets."""


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--write", action="store_true", help="write the result under benchmarks/results")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "timed": on_gpu,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU: no CUDA device, graphs captured only",
        "torch": torch.__version__,
        "models": {},
    }
    for name in options.models:
        result["models"][name] = measure(name, options.steps) if on_gpu else capture(name)
    text = json.dumps(result, indent=1)
    print(text)
    if options.write:
        path = Path(__file__).parent / "results" / f"{result['date']}-gpu-models.json"
        path.write_text(text + "\n")


def measure(name: str, steps: int) -> dict[str, Any]:
    """Return the figures of one model on the GPU."""
    config, rows = PRESETS[name], MODELS[name]
    torch.cuda.reset_peak_memory_stats()
    objective, batch = build(config, rows, "cuda")
    totals = Totals(batch.tokens, rows)
    eager = float(run(objective, batch, totals))
    compiled = torch.compile(objective, fullgraph=True)
    started = time.perf_counter()
    loss = float(run(compiled, batch, totals))
    torch.cuda.synchronize()
    compile_seconds = time.perf_counter() - started
    for _ in range(3):
        run(compiled, batch, totals)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        run(compiled, batch, totals)
    torch.cuda.synchronize()
    speed = steps * rows * config.max_seq_len / (time.perf_counter() - started)
    card = next((card for card in PEAK_FLOPS if card in torch.cuda.get_device_name()), None)
    flops = training_flops_per_token(config, config.max_seq_len) * speed
    return {
        "parameters": count_parameters(config),
        "sequences": rows,
        "compile_seconds": round(compile_seconds, 1),
        "tokens_per_second": round(speed),
        "mfu": round(flops / PEAK_FLOPS[card], 4) if card else None,
        "peak_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "graph_breaks": 0,  # fullgraph=True raises at the first
        "loss_difference": abs(loss - eager),
    }


def capture(name: str) -> dict[str, Any]:
    """Return whether a small model of this kind compiles into one graph, forward and backward."""
    config = changed(PRESETS[name], vocab_size=256, max_seq_len=128, **SMALLER.get(name, {}))
    objective, batch = build(config, 2, "cpu")
    totals = Totals(batch.tokens, 2)
    eager = float(run(objective, batch, totals))
    loss = float(run(torch.compile(objective, fullgraph=True, backend="aot_eager"), batch, totals))
    return {"graph_breaks": 0, "loss_difference": abs(loss - eager)}


def build(config: ModelConfig, rows: int, device: str) -> tuple[Objective, Batch]:
    """Return a new model's objective and random packed sequences of four documents each."""
    torch.manual_seed(0)
    with torch.device(device):
        objective = Objective(build_model(config), TrainConfig())
        inputs = torch.randint(config.vocab_size, (rows, config.max_seq_len))
        documents = torch.arange(config.max_seq_len).expand(rows, -1) * 4 // config.max_seq_len
        mask = torch.ones_like(inputs, dtype=torch.bool)
    return objective, Batch(inputs, inputs.roll(-1, 1), mask, inputs.numel(), documents)


def run(objective: Any, batch: Batch, totals: Totals) -> torch.Tensor:
    """Do a forward and a backward pass; return the loss."""
    torch.manual_seed(0)  # dropout and the queries of the utility loss
    with torch.autocast(batch.inputs.device.type, torch.bfloat16):
        loss, _ = objective(batch, totals)
    loss.backward()
    objective.zero_grad()
    return loss.detach()


if __name__ == "__main__":
    main()
