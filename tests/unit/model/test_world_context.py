"""The context layer: nothing at the start, what it promises once its gains are above 0, and how they learn."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.families.world.config import WorldConfig
from model.families.world.context.layer import QUADRANTS, ContextLayer, ContextScores, attention_bias, write_gate
from model.families.world.pattern import PATTERN
from model.families.world.presets import WORLD_1M, WORLD_235B
from model.layers.basic import init_weights

BATCH, LENGTH, WINDOW = 2, 9, 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def residual(config: WorldConfig = WORLD_1M) -> Tensor:
    return torch.randn(BATCH, LENGTH, config.d_model)


def forced(layer: ContextLayer) -> ContextLayer:
    """The layer with strong gains and decided scores, as hardly any training would make it."""
    with torch.no_grad():
        layer.gain_drop.uniform_(0.5, 4)
        layer.gain_decay.uniform_(0.5, 4)
        layer.gain_write.uniform_(0.2, 1)
        layer.score.weight.normal_(std=20)
        layer.score.bias.normal_()
    return layer


def bias_of(scores: ContextScores, sublayer: int = 0) -> Tensor:
    rows = torch.arange(scores.importance_BT.shape[1])
    gains = scores.drop_gain_AH[sublayer], scores.decay_gain_AH[sublayer]
    return attention_bias(scores.importance_BT, scores.urgency_BT, rows, rows, *gains, WINDOW)


def test_pattern_is_the_specified_one() -> None:
    assert PATTERN == "DDDADDDA"


@pytest.mark.parametrize("config", [WORLD_1M, WORLD_235B], ids=["1m", "235b"])
def test_parameters_are_those_of_the_specification(config: WorldConfig) -> None:
    with torch.device("meta"):
        layer = ContextLayer(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    d, r = config.d_model, config.context_rank
    assert shapes == {
        "norm.weight": (d,), "down.weight": (r, d), "score.weight": (2, r), "score.bias": (2,),
        "gain_drop": (2, config.n_heads), "gain_decay": (2, config.n_heads),
        "gain_write": (6, config.n_value_heads),
    }  # fmt: skip
    count = d + d * r + 2 * r + 2 + 2 * 2 * config.n_heads + 6 * config.n_value_heads
    assert sum(parameter.numel() for parameter in layer.parameters()) == count


def test_layer_built_on_meta_starts_as_one_built_here() -> None:
    with torch.device("meta"):
        layer = ContextLayer(WORLD_1M)
    layer.to_empty(device="cpu")
    init_weights(layer)
    for gain in (layer.gain_drop, layer.gain_decay, layer.gain_write, layer.score.bias):
        assert not gain.any()
    assert layer.down.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert layer.score.weight.any()


def test_start_changes_neither_logits_nor_write_strength_bitwise() -> None:
    scores = ContextLayer(WORLD_1M)(residual())
    logits = torch.randn(BATCH, WORLD_1M.n_heads, LENGTH, LENGTH)
    logits[0, 0, 0, :4] = torch.tensor([0.0, -0.0, -torch.inf, 1e-45])
    assert torch.equal((logits + bias_of(scores)).view(torch.int32), logits.view(torch.int32))
    beta = torch.rand(BATCH, LENGTH, WORLD_1M.n_value_heads)
    gate = write_gate(scores.importance_BT, scores.urgency_BT, scores.write_gain_DH[0])
    assert torch.equal((beta * gate).view(torch.int32), beta.view(torch.int32))


def test_gains_below_zero_change_nothing() -> None:
    layer = ContextLayer(WORLD_1M)
    with torch.no_grad():
        for gain in (layer.gain_drop, layer.gain_decay, layer.gain_write):
            gain.uniform_(-3, -0.1)
        scores = layer(residual())
    assert not scores.acts
    assert not bias_of(scores).any()
    assert torch.all(write_gate(scores.importance_BT, scores.urgency_BT, scores.write_gain_DH[0]) == 1)


def test_bias_is_the_written_out_formula() -> None:
    scores = forced(ContextLayer(WORLD_1M))(residual())
    for sublayer in range(2):
        bias = bias_of(scores, sublayer)
        assert bias.shape == (BATCH, WORLD_1M.n_heads, LENGTH, LENGTH)
        for b, h, i, j in [(0, 0, 8, 0), (1, 3, 5, 4), (1, 2, 3, 3), (0, 1, 2, 7)]:
            important, urgent = scores.importance_BT[b, j], scores.urgency_BT[b, j]
            drop, delegate = (1 - important) * (1 - urgent), (1 - important) * urgent
            a, c = scores.drop_gain_AH[sublayer, h], scores.decay_gain_AH[sublayer, h]
            expected = -(a * drop + c * delegate * torch.tensor(1 + max(0, i - j) / WINDOW).log())
            torch.testing.assert_close(bias[b, h, i, j], expected, rtol=1e-5, atol=1e-6)


def test_bias_of_rows_per_sequence_equals_the_selected_keys() -> None:
    scores = forced(ContextLayer(WORLD_1M))(residual())
    kept = torch.tensor([[0, 2, 5, 7], [1, 3, 4, 8]])
    rows = torch.tensor([[7, 8], [7, 8]])
    whole = bias_of(scores)[:, :, 7:9]
    expected = whole.gather(3, kept[:, None, None].expand(-1, whole.shape[1], 2, -1))
    important, urgent = scores.importance_BT.gather(1, kept), scores.urgency_BT.gather(1, kept)
    for rows_T in (rows, rows[0]):
        bias = attention_bias(
            important, urgent, rows_T, kept, scores.drop_gain_AH[0], scores.decay_gain_AH[0], WINDOW
        )
        torch.testing.assert_close(bias, expected, rtol=0, atol=0)


def test_write_gate_is_the_written_out_formula() -> None:
    scores = forced(ContextLayer(WORLD_1M))(residual())
    gate = write_gate(scores.importance_BT, scores.urgency_BT, scores.write_gain_DH[3])
    drop = (1 - scores.importance_BT[1, 4]) * (1 - scores.urgency_BT[1, 4])
    torch.testing.assert_close(gate[1, 4], 1 - scores.write_gain_DH[3] * drop)
    assert gate.shape == (BATCH, LENGTH, WORLD_1M.n_value_heads)
    assert gate.min() >= 0
    assert gate.max() <= 1


def test_quadrants_sum_to_one_and_follow_the_names() -> None:
    scores = forced(ContextLayer(WORLD_1M))(residual())
    torch.testing.assert_close(scores.quadrants_BT4.sum(-1), torch.ones(BATCH, LENGTH))
    parts = [getattr(scores, f"{name}_BT") for name in QUADRANTS]
    assert torch.equal(scores.quadrants_BT4, torch.stack(parts, -1))
    one, zero = torch.ones(1, 2), torch.zeros(1, 2)
    for important, urgent, name in [(one, one, "do"), (one, zero, "schedule"), (zero, one, "delegate")]:
        assert torch.equal(getattr(ContextScores(important, urgent, *scores[2:]), f"{name}_BT"), one)


@pytest.mark.parametrize("start", [0.0, -0.5], ids=["at-zero", "below-zero"])
def test_gains_get_a_gradient(start: float) -> None:
    layer = ContextLayer(WORLD_1M)
    with torch.no_grad():
        for gain in (layer.gain_drop, layer.gain_decay, layer.gain_write):
            gain.fill_(start)
    scores = layer(residual())
    assert scores.acts
    attention = (torch.randn(BATCH, WORLD_1M.n_heads, LENGTH, LENGTH) + bias_of(scores)).softmax(-1)
    gate = write_gate(scores.importance_BT, scores.urgency_BT, scores.write_gain_DH[0])
    (attention * torch.randn_like(attention)).sum().backward(retain_graph=True)
    (gate * torch.randn_like(gate)).sum().backward()
    for gain in (layer.gain_drop, layer.gain_decay, layer.gain_write):
        assert gain.grad is not None
        assert gain.grad[0].abs().min() > 0  # of the sublayer that was used, in every head


def test_write_gain_above_one_counts_as_one_with_a_gradient() -> None:
    layer = ContextLayer(WORLD_1M)
    with torch.no_grad():
        layer.gain_write.fill_(1e9)
    scores = layer(residual())
    assert torch.all(scores.write_gain_DH == 1)
    scores.write_gain_DH.sum().backward()
    assert torch.equal(layer.gain_write.grad, torch.ones_like(layer.gain_write))


def test_scorer_learns_but_never_bends_the_trunk() -> None:
    layer = forced(ContextLayer(WORLD_1M))
    x = residual().requires_grad_()
    bias_of(layer(x)).sum().backward()
    assert x.grad is None
    assert all(
        parameter.grad is not None for parameter in (layer.norm.weight, layer.down.weight, layer.score.bias)
    )


def test_scores_of_a_token_depend_on_it_alone() -> None:
    layer = forced(ContextLayer(WORLD_1M))
    x = residual()
    changed = x.clone()
    changed[:, 5] += 1
    before, after = layer(x).quadrants_BT4, layer(changed).quadrants_BT4
    assert (before != after).any(-1)[:, 5].all()
    assert torch.equal(before[:, [*range(5), *range(6, LENGTH)]], after[:, [*range(5), *range(6, LENGTH)]])


def test_scores_are_float32_in_low_precision() -> None:
    layer = forced(ContextLayer(WORLD_1M))
    x = residual()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = layer(x)
    in_bfloat16 = layer.bfloat16()(x.bfloat16())
    for scores in (under_autocast, in_bfloat16):
        assert {tensor.dtype for tensor in scores} == {torch.float32}


def test_acts_without_gradient_only_with_a_gain_of_attention() -> None:
    layer = ContextLayer(WORLD_1M)
    with torch.no_grad():
        assert not layer(residual()).acts
        layer.gain_write.fill_(0.5)
        assert not layer(residual()).acts
        layer.gain_decay[1, 2] = 0.01
        assert layer(residual()).acts


def test_frozen_gains_of_zero_do_not_act_in_training() -> None:
    layer = ContextLayer(WORLD_1M)
    for gain in (layer.gain_drop, layer.gain_decay, layer.gain_write):
        gain.requires_grad_(False)
    scores = layer(residual())
    assert scores.importance_BT.requires_grad
    assert not scores.acts


def test_fading_key_loses_attention_with_age_and_important_one_does_not() -> None:
    important, urgent = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    bias = attention_bias(
        important, urgent, torch.tensor([1, 10, 100]), torch.tensor([0, 1]), torch.ones(1), torch.ones(1), WINDOW
    )
    attention = F.softmax(bias, dim=-1)[0, 0, :, 1]
    assert attention[0] == 0.5
    assert attention[0] > attention[1] > attention[2]
