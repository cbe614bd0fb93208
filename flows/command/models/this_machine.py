"""What a training takes on the machine that asks: memory on paper, time only if it was measured."""

import os
from pathlib import Path
from typing import Any

from flows.runs.request import open_store
from model.families import estimate as paper
from model.families.base import ModelConfig
from storage.config import Config
from storage.wording import duration, size
from tasks.core.execution import Execution

CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def machine_numbers(device: str) -> dict[str, Any]:
    """Return the device that training takes here, its name and its memory in bytes. Raises: InputError."""
    from model.layers.device import choose_device, gpu_memory  # noqa: PLC0415 - torch: seconds that only this needs

    chosen = choose_device(Execution.model_validate({"device": device}).device)
    cores = os.cpu_count() or 1
    name, memory = gpu_memory(chosen) or (f"{cores} cores", _memory_bytes())
    return {"device": chosen.type, "name": name, "memory_bytes": memory, "cores": cores}


def needed_bytes(config: ModelConfig, sequence_length: int, sequences: int) -> dict[str, int]:
    """Return the memory that training in float32 takes at least, by what it is for; attention adds its own."""
    return {
        "training_states": paper.training_state_bytes(config, "float32"),
        "layer_inputs": 2 * sequences * paper.layer_input_bytes(config, sequence_length),
        "logits_and_their_gradients": 2 * 4 * sequences * sequence_length * config.vocab_size,
    }


def measured(store_url: str | None, training: Config, tokens: float) -> dict[str, Any] | None:
    """Return how fast the newest finished training with this model and batch was, None if there is none.

    Only its last attempt is measured, so that one that was continued says nothing and is left out.
    """
    wanted = training.identity()
    same = ("model", "global_batch_size", "micro_batch_size")
    found = None
    for manifest in open_store(store_url).manifests("train"):
        config = manifest.config
        if len(manifest.attempts) == 1 and all(config.get(name) == wanted.get(name) for name in same):
            found = manifest if found is None or manifest.finished > found.finished else found
    if found is None or not found.seconds:
        return None
    steps_per_second = found.config["max_steps"] / found.seconds
    return {
        "artifact": f"train/{found.key}",
        "steps_per_second": steps_per_second,
        "seconds": wanted["max_steps"] / steps_per_second,
        "tokens_per_second": tokens / wanted["max_steps"] * steps_per_second,
    }


def machine_lines(numbers: dict[str, Any]) -> list[str]:
    """Return what people read about this machine."""
    machine, need = numbers["machine"], numbers["needed_bytes"]
    total = sum(need.values())
    parts = ", ".join(f"{name.replace('_', ' ')} {size(count)}" for name, count in need.items())
    timed = numbers["measured"]
    lines = [
        f"this machine: {machine['device']} ({machine['name']}), {size(machine['memory_bytes'])} of memory",
        f"training needs at least {size(total)}: {parts}",
        "it fits" if numbers["fits"] else "it does not fit here; below is what it takes on GPUs",
        f"{numbers['tokens']:,.0f} tokens are {numbers['flops']:.2g} FLOPs",
    ]
    if timed:
        lines.append(
            f"about {duration(timed['seconds'])}, as fast as {timed['artifact']} in this store "
            f"({timed['steps_per_second']:.3g} steps/s)"
        )
    elif numbers["fits"]:
        lines.append(
            "how long that takes is unknown before such a model was trained here; --gpu h100 reckons GPUs"
        )
    return lines


def _memory_bytes() -> int:
    """Return the memory that this process may have: that of the machine, or less if its cgroup has a limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = CGROUP_MEMORY.read_text().strip()
    except OSError:
        return installed
    return min(installed, int(limit)) if limit.isdigit() else installed
