"""What the Eisenhower context layer is worth: `python -m benchmarks.context_ablation --store FOLDER`.

Trains `world-1m` on the packed sequences of the demo (built if they are not there) with the same seeds, order and
number of tokens in three arms, and prints the mean and deviation of the validation loss over seeds:

    off      no context layer
    scores   scorer and utility loss, but gains held at 0: the picture without any effect
    full     everything
    shuffled the trained `full` with its scores shuffled over time: must hurt if the layer does something

An arm differs from `off` only if the 95 % interval of the paired differences (Student's t) leaves 0 out; otherwise
the verdict is "no difference", which is a result like any other.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from scipy import stats

from model.families.presets import preset_shape
from model.families.registry import build_model
from model.families.world.context.layer import ContextScores
from model.families.world.network import WorldModel
from model.training.batch import Totals
from model.training.config import TrainConfig, model_config_for
from model.training.data import PackedData, evaluation_batches, open_sequences, step_batches
from model.training.engines.local.engine import LocalEngine
from model.training.objective import Objective
from model.training.update import count, mean_loss, update
from storage.artifacts.store import Store
from storage.config import changed

ARMS = ("off", "scores", "full")


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True, help="where the demo's packed sequences are, or will be built")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, vocab_size = packed_demo(options.store)
    losses: dict[str, list[float]] = {name: [] for name in (*ARMS, "shuffled")}
    gains = []
    for seed in range(options.seeds):
        for arm in ARMS:
            config = arm_config(arm, options.steps, seed)
            objective, engine = train(config, data, vocab_size, frozen_gains=arm == "scores")
            losses[arm].append(validate(objective, engine, data))
            if arm == "full":
                with shuffled_scores(objective.model, seed):
                    losses["shuffled"].append(validate(objective, engine, data))
                gains.append(largest_gains(objective.model))
            print(f"seed {seed} {arm}: {losses[arm][-1]:.4f}", file=sys.stderr, flush=True)
    result = {
        "steps": options.steps,
        "tokens": options.steps * config.global_batch_size * data.sequence_length,
        "validation_loss": {name: describe(values) for name, values in losses.items()},
        "against_off": {name: compare(losses[name], losses["off"]) for name in ("scores", "full")},
        "shuffled_against_full": compare(losses["shuffled"], losses["full"]),
        "largest_gains_of_full": gains,
    }
    print(json.dumps(result, indent=1))


def packed_demo(store_url: str) -> tuple[PackedData, int]:
    """Return the demo's packed sequences and the size of its vocabulary."""
    command = [
        sys.executable,
        "-m",
        "flows.command",
        "--quiet",
        "run",
        "demo",
        "--target",
        "pack",
        "--store",
        store_url,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    store = Store(store_url)
    newest = max(store.manifests("pack"), key=lambda manifest: manifest.finished)
    artifact = store.find("pack", newest.key)
    assert artifact is not None, "the pack stage has just been run"
    data = open_sequences(artifact)
    return data, data.train.format.tokens.vocab_size


def arm_config(arm: str, steps: int, seed: int) -> TrainConfig:
    """Return how an arm is trained."""
    shape = preset_shape("world-1m")
    if arm == "off":
        shape = changed(shape, context_rank=0)
    return TrainConfig(
        model=shape, max_steps=steps, warmup_steps=steps // 10, micro_batch_size=8, eval_sequences=128, seed=seed
    )


def train(
    config: TrainConfig, data: PackedData, vocab_size: int, *, frozen_gains: bool
) -> tuple[Objective, LocalEngine]:
    """Return the trained model in its objective, and its engine."""
    torch.manual_seed(config.seed)
    model = build_model(model_config_for(config.model, vocab_size, data.sequence_length))
    copy_common_weights(model, config, vocab_size, data.sequence_length)
    for name, parameter in model.named_parameters():
        if frozen_gains and "gain_" in name:
            parameter.requires_grad_(False)
    objective = Objective(model, config)
    engine = LocalEngine(objective, torch.device("cpu"))
    for step in range(1, config.max_steps + 1):
        batches = step_batches(data.train, config, step, engine)
        update(engine, objective, step, batches, Totals(*count(batches)))
    return objective, engine


def copy_common_weights(model: torch.nn.Module, config: TrainConfig, vocab_size: int, length: int) -> None:
    """Give all arms of a seed the same initial weights where they have the same parameters."""
    torch.manual_seed(config.seed)
    plain = build_model(model_config_for(changed(preset_shape("world-1m"), context_rank=0), vocab_size, length))
    model.load_state_dict(plain.state_dict(), strict=False)


def validate(objective: Objective, engine: LocalEngine, data: PackedData) -> float:
    """Return the validation loss."""
    assert data.validation is not None, "the demo has a validation split"
    return mean_loss(engine, evaluation_batches(data.validation, objective.config, engine))


@contextmanager
def shuffled_scores(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Give every token the scores of another one of its sequence."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(_module: Any, _inputs: Any, scores: ContextScores) -> ContextScores:
        order = torch.randperm(scores.importance_BT.shape[1], generator=generator)
        return scores._replace(
            importance_BT=scores.importance_BT[:, order], urgency_BT=scores.urgency_BT[:, order]
        )

    layers = cast(WorldModel, model).context
    hooks = [layer.register_forward_hook(shuffle) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def largest_gains(model: torch.nn.Module) -> dict[str, float]:
    """Return the largest gain of each kind after training: 0 means that the layer does not act."""
    gains = {name: parameter for name, parameter in model.named_parameters() if "gain_" in name}
    kinds = sorted({name.rpartition(".")[2] for name in gains})
    return {
        kind: round(max(float(p.detach().max()) for name, p in gains.items() if name.endswith(kind)), 4)
        for kind in kinds
    }


def describe(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": round(statistics.mean(values), 4), "sd": round(deviation, 4), "seeds": len(values)}


def compare(values: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Return the mean paired difference, half its 95 % interval, and what may be concluded."""
    differences = [value - other for value, other in zip(values, base, strict=True)]
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return {"difference": round(mean, 5), "verdict": "one seed says nothing"}
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    verdict = "no difference" if abs(mean) <= half else ("lower loss" if mean < 0 else "higher loss")
    return {"difference": round(mean, 5), "interval": round(half, 5), "verdict": verdict}


if __name__ == "__main__":
    main()
