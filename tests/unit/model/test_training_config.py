"""What a training config refuses, and what decides its identity."""

from typing import Any

import pytest
from pydantic import ValidationError

from model.families.gpt2.config import GPT2Shape
from model.families.presets import preset_shape
from model.families.rope.config import RopeShape
from model.training.config import TrainConfig, model_config_for
from storage.config import changed


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"global_batch_size": 12, "micro_batch_size": 8}, "multiple of micro_batch_size.*12 and 8.*=16"),
        ({"warmup_steps": 10, "max_steps": 10}, "warmup_steps must be less than max_steps, found 10 and 10"),
        ({"model": {"n_heads": 5}}, "d_model.*n_heads.*192.*5"),
        ({"model": {"n_heads": 6, "n_kv_heads": 4}}, "multiple of n_kv_heads"),
        ({"model": {"n_layers": 0}}, "n_layers"),
        ({"beta2": 1.0}, "beta2"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"lerning_rate": 1e-3}, "lerning_rate"),
        ({"max_steps": 10.0}, "max_steps"),
    ],
)
def test_config_that_cannot_be_trained_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){named}"):
        TrainConfig(**fields)


@pytest.mark.parametrize("width", ["d_model", "d_expert"])
def test_hybrid_whose_experts_transformers_cannot_multiply_is_refused(width: str) -> None:
    hybrid = {"router": "softmax_aux", "context_rank": 0, "n_tones": 0, "n_fields": 0}
    world = preset_shape("world-1m")
    with pytest.raises(ValidationError, match=f"{width} must be a multiple of 4.*found 30; try {width}=32"):
        changed(world, **{**hybrid, width: 30})
    for ours in ("context_rank", "router"):  # published with our own code, which takes any width
        changed(world, **{**hybrid, width: 30, ours: getattr(world, ours)})


def test_identity_leaves_out_how_often_a_training_is_saved_and_logged() -> None:
    config = TrainConfig()
    assert changed(config, checkpoint_every=7, keep_checkpoints=5, log_every=3).identity() == config.identity()
    assert changed(config, eval_every=7, eval_sequences=0).identity() == config.identity()
    assert changed(config, max_steps=config.max_steps + 1).identity() != config.identity()
    assert changed(config, seed=1).identity() != config.identity()
    assert changed(config, model=RopeShape(d_ff=256)).identity() != config.identity()


@pytest.mark.parametrize(
    ("model", "decides"),
    [
        (preset_shape("world-1m"), False),
        (changed(preset_shape("world-1m"), router="softmax_aux"), True),
        (RopeShape(), False),
        (RopeShape(dropout=0.1), True),
        (GPT2Shape(n_layers=1, n_heads=1, d_model=8), False),
        (GPT2Shape(n_layers=1, n_heads=1, d_model=8, dropout=0.1), True),
    ],
    ids=str,
)
def test_micro_batches_decide_the_result_only_of_models_that_mix_their_rows(model: Any, decides: bool) -> None:
    configs = [TrainConfig(model=model, micro_batch_size=size) for size in (2, 4)]
    assert (configs[0].identity() != configs[1].identity()) == decides


@pytest.mark.parametrize(("vocab_size", "rows"), [(1, 64), (64, 64), (65, 128), (4096, 4096)])
def test_vocabulary_is_padded_to_a_multiple_of_64(vocab_size: int, rows: int) -> None:
    model = model_config_for(RopeShape(), vocab_size, 256)
    assert (model.vocab_size, model.max_seq_len) == (rows, 256)
