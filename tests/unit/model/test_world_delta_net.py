"""Gated DeltaNet against transformers' module, and what its memory and its document borders promise."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.families.world.delta_net import DeltaState, GatedDeltaNet
from model.families.world.presets import WORLD_1M
from model.layers.basic import init_weights, residual_std
from storage.config import changed

SHAPES = {
    "four-values-per-two-keys": WORLD_1M,
    "one-value-per-key": changed(WORLD_1M, n_key_heads=3, n_value_heads=3, key_dim=8, value_dim=8, conv_taps=2),
    "one-key": changed(WORLD_1M, n_key_heads=1, value_dim=16, norm_eps=1e-3),
}
LENGTH = 150

# float32 sums in another order; values are of size 1.
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def random_layer(config=WORLD_1M) -> GatedDeltaNet:
    """A layer whose norm and output are far from their initial values, so that a wrong convention shows."""
    torch.manual_seed(1)
    layer = GatedDeltaNet(config)
    with torch.no_grad():
        for weight in (layer.norm.weight, layer.dt_bias, layer.A_log):
            weight.add_(0.1 * torch.randn_like(weight))
        for projection in (layer.in_proj_qkvz, layer.in_proj_ba, layer.out_proj):
            projection.weight.normal_(std=projection.in_features**-0.5)
    return layer.eval()


def random_text(batch: int = 2, length: int = LENGTH, width: int = WORLD_1M.d_model) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(length))


def documents_of(*lengths: int, numbers: tuple[int, ...] | None = None) -> Tensor:
    numbers = numbers or tuple(range(len(lengths)))
    return torch.cat([torch.full((n,), number) for n, number in zip(lengths, numbers, strict=True)])[None]


def qwen3_next(config) -> torch.nn.Module:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    shape = Qwen3NextConfig(
        hidden_size=config.d_model,
        num_hidden_layers=4,
        linear_num_key_heads=config.n_key_heads,
        linear_num_value_heads=config.n_value_heads,
        linear_key_head_dim=config.key_dim,
        linear_value_head_dim=config.value_dim,
        linear_conv_kernel_dim=config.conv_taps,
        rms_norm_eps=config.norm_eps,
    )
    return Qwen3NextGatedDeltaNet(shape, layer_idx=0).eval()


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("length", [1, 2, LENGTH])
def test_equals_transformers_with_the_same_weights(config, length: int) -> None:
    ours, theirs = random_layer(config), qwen3_next(config)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = random_text(length=length)
    torch.testing.assert_close(ours(x), theirs(x), atol=TOLERANCE, rtol=0)


def test_gradients_equal_transformers() -> None:
    ours, theirs = random_layer(), qwen3_next(WORLD_1M)
    theirs.load_state_dict(ours.state_dict())
    x = random_text()
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        reference = expected[name].grad
        assert (parameter.grad - reference).norm() <= 1e-5 * reference.norm(), name


@torch.no_grad()
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 99), min_size=1, max_size=8, unique=True))
def test_text_read_in_parts_equals_text_read_at_once(cuts: list[int]) -> None:
    layer, x, state = random_layer(), random_text(length=100), DeltaState()
    edges = [0, *sorted(cuts), 100]
    parts = [layer(x[:, a:b], state=state) for a, b in pairwise(edges)]
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x), atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prompt", [0, 1, 2, 3, 97])
def test_text_read_token_by_token_equals_text_read_at_once(prompt: int) -> None:
    layer, x, state = random_layer(), random_text(length=110), DeltaState()
    parts = [layer(x[:, :prompt], state=state)] if prompt else []
    parts += [layer(x[:, t : t + 1], state=state) for t in range(prompt, 110)]
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x), atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_cloned_state_is_independent() -> None:
    layer, x, state = random_layer(), random_text(), DeltaState()
    assert state.clone() == DeltaState()
    layer(x[:, :100], state=state)
    copy = state.clone()
    expected = layer(x[:, 100:], state=state.clone())
    layer(x[:, :50], state=copy)
    assert torch.equal(layer(x[:, 100:], state=state), expected)
    assert state.conv.shape == (2, WORLD_1M.conv_taps - 1, 2 * 2 * 16 + 4 * 32)
    assert (state.recurrent.shape, state.recurrent.dtype) == ((2, 4, 16, 32), torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(60, 50, 40), (64, 64, 22), (1, 2, 3, 144), (147, 1, 1, 1), (10,) * 15])
def test_packed_documents_equal_separate_ones(lengths: tuple[int, ...]) -> None:
    layer, x = random_layer(), random_text(batch=1)
    packed = layer(x, documents_of(*lengths))
    separate = torch.cat([layer(document) for document in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, separate, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_number_that_comes_back_is_another_document() -> None:
    layer, x = random_layer(), random_text(batch=1, length=12)
    again = layer(x, documents_of(5, 1, 6, numbers=(7, 8, 7)))
    assert torch.equal(again, layer(x, documents_of(5, 1, 6)))


@torch.no_grad()
@pytest.mark.parametrize("padding", [1, 2, 5, 70])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_left_padding_changes_nothing_and_decoding_needs_no_numbers(padding: int, length: int) -> None:
    layer, x = random_layer(), random_text(batch=1, length=length + 5)
    prompt, rest = x[:, :length], x[:, length:]
    padded = torch.cat((random_text(batch=1, length=padding), prompt), dim=1)
    state = DeltaState()
    first = layer(padded, documents_of(padding, length), state=state)[:, padding:]
    second = [layer(token, state=state) for token in rest.split(1, dim=1)]
    torch.testing.assert_close(torch.cat((first, *second), dim=1), layer(x), atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_document_numbers_with_a_state_that_has_read_are_refused() -> None:
    layer, x, state = random_layer(), random_text(batch=1), DeltaState()
    layer(x, state=state)
    with pytest.raises(ValueError, match="document numbers must come with the first tokens"):
        layer(x, documents_of(LENGTH), state=state)


@torch.no_grad()
def test_later_tokens_change_nothing_before_them() -> None:
    layer, x = random_layer(), random_text()
    gate = torch.rand(2, LENGTH, 4)
    before = layer(x, documents_of(50, 100).expand(2, -1), gate)
    x[:, 100:], gate[:, 100:] = 1.0, 0.5
    after = layer(x, documents_of(50, 100).expand(2, -1), gate)
    assert torch.equal(before[:, :100], after[:, :100])
    assert (before[:, 100:] - after[:, 100:]).abs().min(dim=-1).values.max() > 0


@torch.no_grad()
def test_a_closed_write_gate_makes_a_token_invisible_to_the_memory() -> None:
    layer, x = random_layer(), random_text()
    assert torch.equal(layer(x, write_gate_BTH=torch.ones(2, LENGTH, 4)), layer(x))
    closed = torch.zeros(2, LENGTH, 4)
    state = DeltaState()
    assert torch.equal(layer(x, write_gate_BTH=closed, state=state), torch.zeros_like(x))
    assert torch.equal(state.recurrent, torch.zeros_like(state.recurrent))


@torch.no_grad()
def test_negative_eigenvalues_double_what_is_written() -> None:
    plain, doubled = random_layer(), random_layer(changed(WORLD_1M, allow_negative_eigenvalues=True))
    x, half = random_text(), torch.full((2, LENGTH, 4), 0.5)
    torch.testing.assert_close(doubled(x, write_gate_BTH=half), plain(x), atol=TOLERANCE, rtol=0)
    assert not torch.allclose(doubled(x), plain(x), atol=1e-2)


def test_initial_values_follow_the_specification_and_can_be_drawn_later() -> None:
    config = changed(WORLD_1M, n_key_heads=64, n_value_heads=512, key_dim=2, value_dim=4)
    torch.manual_seed(3)
    layer = GatedDeltaNet(config)
    decay, step = layer.A_log.exp(), torch.nn.functional.softplus(layer.dt_bias)
    assert 0.01 <= decay.min() < 0.5
    assert 15.5 < decay.max() <= 16.0001
    assert 0.00099 <= step.min() < 0.0015
    assert 0.08 < step.max() <= 0.1001
    # dt is log-uniform: half of the heads are below the geometric mean.
    assert 0.4 < (step < 0.01).float().mean() < 0.6
    assert layer.conv1d.weight.abs().max() <= 0.5
    assert layer.out_proj.weight.std().item() == pytest.approx(residual_std(config.n_layers), rel=0.05)
    assert torch.equal(layer.norm.weight, torch.ones(4))

    with torch.device("meta"):
        later = GatedDeltaNet(config)
    later.to_empty(device="cpu")
    torch.manual_seed(3)
    init_weights(later)
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, later.get_parameter(name)), name


def test_decays_are_float32_whatever_the_default_type() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        layer = GatedDeltaNet(WORLD_1M)
        out = layer(random_text().bfloat16())
    finally:
        torch.set_default_dtype(torch.float32)
    assert (layer.A_log.dtype, layer.dt_bias.dtype) == (torch.float32, torch.float32)
    assert out.dtype == torch.bfloat16


@torch.no_grad()
def test_bfloat16_weights_and_autocast_stay_near_float32() -> None:
    layer, x = random_layer(), random_text()
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    half = layer.bfloat16()(x.bfloat16())
    # 8 bits of mantissa: 0.4 % per rounding, a few of them in a row.
    for found in (mixed, half):
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_trains_with_deterministic_algorithms_and_compiles_into_one_graph() -> None:
    layer, x = random_layer(), random_text()
    documents, gate = documents_of(60, 50, 40).expand(2, -1), torch.rand(2, LENGTH, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.use_deterministic_algorithms(True)
    try:
        for module in (layer, compiled):
            layer.zero_grad()
            out = module(x, documents, gate)
            out.sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(out, layer(x, documents, gate), atol=TOLERANCE, rtol=0)
