"""The gated delta rule against its definition, against transformers, and where numbers become extreme."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.families.world.delta_rule import chunked_delta_rule, delta_rule, l2_normalize, recurrent_delta_rule

LENGTHS = [1, 63, 64, 65, 150]

# float32 sums of a few hundred numbers of size 1, in another order.
TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_inputs(length: int, batch: int = 2, heads: int = 4, d_key: int = 16, d_value: int = 32) -> list[Tensor]:
    """q, k, v, g, beta, state; g reaches from no decay at all to forgetting within a token."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator)

    q, k = (l2_normalize(normal(length, heads, d_key)) for _ in range(2))
    g = -F.softplus(normal(length, heads)) * uniform(length, heads) * 4
    v, beta, state = normal(length, heads, d_value), uniform(length, heads), normal(heads, d_key, d_value)
    return [q * d_key**-0.5, k, v, g, beta, state]


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The formula of the paper in float64, one head of one sequence at a time."""
    q, k, v, g, beta = (x.double() for x in (q, k, v, g, beta))
    batch, length, heads, d_key = k.shape
    out = torch.zeros_like(v)
    states = torch.zeros(batch, heads, d_key, v.shape[-1], dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            S = torch.zeros(d_key, v.shape[-1], dtype=torch.float64) if state is None else state[b, h].double()
            for t in range(length):
                erase = torch.eye(d_key).double() - beta[b, t, h] * torch.outer(k[b, t, h], k[b, t, h])
                S = g[b, t, h].exp() * erase @ S + beta[b, t, h] * torch.outer(k[b, t, h], v[b, t, h])
                out[b, t, h] = S.T @ q[b, t, h]
            states[b, h] = S
    return out, states


def assert_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), reference.double(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("rule", [recurrent_delta_rule, chunked_delta_rule, delta_rule])
@pytest.mark.parametrize("length", [1, 2, 33, 70])
@pytest.mark.parametrize("carried", [False, True], ids=["from-zero", "carried-state"])
def test_each_form_equals_the_definition(rule, length: int, carried: bool) -> None:
    *inputs, state = random_inputs(length, heads=2)
    state = state if carried else None
    assert_close(rule(*inputs, state), by_definition(*inputs, state))


@pytest.mark.parametrize("length", LENGTHS)
def test_chunked_equals_recurrent_with_gradients(length: int) -> None:
    inputs = [x.requires_grad_() for x in random_inputs(length)]
    chunked, recurrent = chunked_delta_rule(*inputs), recurrent_delta_rule(*inputs)
    assert_close(chunked, recurrent)
    weights = [torch.randn_like(x) for x in chunked]
    ours, expected = (
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(result, weights, strict=True)), inputs)
        for result in (chunked, recurrent)
    )
    for name, found, reference in zip(("q", "k", "v", "g", "beta", "state"), ours, expected, strict=True):
        error = (found - reference).norm() / reference.norm()
        assert error <= GRADIENT_TOLERANCE, f"gradient of {name}"


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("carried", [False, True], ids=["from-zero", "carried-state"])
def test_equals_transformers(length: int, carried: bool) -> None:
    from transformers.models.qwen3_next import modeling_qwen3_next as theirs

    q, *inputs, state = random_inputs(length)
    state = state if carried else None
    # transformers scales the queries itself.
    options = {"initial_state": state, "output_final_state": True}
    scaled = q * q.shape[-1] ** -0.5
    chunked = theirs.torch_chunk_gated_delta_rule(q, *inputs, **options)
    recurrent = theirs.torch_recurrent_gated_delta_rule(q, *inputs, **options)
    for rule in (chunked_delta_rule, recurrent_delta_rule):
        assert_close(rule(scaled, *inputs, state), chunked)
        assert_close(rule(scaled, *inputs, state), recurrent)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(2, 200), data=st.data())
def test_text_in_two_parts_equals_text_at_once(length: int, data: st.DataObject) -> None:
    split = data.draw(st.integers(1, length - 1))
    *inputs, state = random_inputs(length, batch=1, heads=2, d_key=8, d_value=8)
    first, between = delta_rule(*(x[:, :split] for x in inputs), state)
    second, last = delta_rule(*(x[:, split:] for x in inputs), between)
    expected = recurrent_delta_rule(*inputs, state)
    assert_close((torch.cat((first, second), dim=1), last), expected)


def test_strong_decay_gives_no_nan() -> None:
    inputs = random_inputs(150)
    inputs[3] = -1e4 * torch.rand_like(inputs[3])
    inputs = [x.requires_grad_() for x in inputs]
    chunked = chunked_delta_rule(*inputs)
    assert_close(chunked, recurrent_delta_rule(*inputs))
    for gradient in torch.autograd.grad(chunked[0].sum() + chunked[1].sum(), inputs):
        assert gradient.isfinite().all()


def test_equal_keys_that_overwrite_each_other_stay_exact() -> None:
    # The powers of such a chunk's matrix reach 1e18: a series for its inverse would be lost in rounding.
    q, k, v, g, _, state = random_inputs(128)
    inputs = (q, k[:, :1].expand_as(k), v, torch.zeros_like(g), torch.ones_like(g), state)
    assert_close(chunked_delta_rule(*inputs), by_definition(*inputs))


def test_later_tokens_change_nothing_before_them() -> None:
    inputs = random_inputs(100)[:5]
    before, _ = chunked_delta_rule(*inputs)
    for x in inputs:
        x[:, 70:] = torch.rand_like(x[:, 70:]) - 1
    after, _ = chunked_delta_rule(*inputs)
    assert torch.equal(before[:, :70], after[:, :70])
    assert not torch.equal(before[:, 70:], after[:, 70:])


@pytest.mark.parametrize("rule", [recurrent_delta_rule, chunked_delta_rule])
def test_half_precision_is_computed_in_float32(rule) -> None:
    *inputs, state = random_inputs(70)
    inputs = [x.bfloat16() for x in inputs]
    exact, exact_state = rule(*(x.float() for x in inputs), state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, last = rule(*inputs, state)
    assert (out.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(out, exact.bfloat16())
    assert torch.equal(last, exact_state)


def test_compiles_into_one_graph() -> None:
    *inputs, state = random_inputs(70)
    compiled = torch.compile(delta_rule, fullgraph=True, backend="eager")
    assert_close(compiled(*inputs, state), recurrent_delta_rule(*inputs, state))


def test_l2_normalize_gives_length_one_and_survives_zeros() -> None:
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(l2_normalize(x), F.normalize(x, dim=-1).float(), atol=1e-6, rtol=0)
    assert torch.equal(l2_normalize(torch.zeros(2, 8)), torch.zeros(2, 8))
