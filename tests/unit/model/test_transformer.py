"""The transformer against transformers' Llama and against what its definition promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from model.config import ModelConfig, count_parameters
from model.export import from_llama, llama_config, to_llama
from model.transformer import INIT_STD, Transformer, sequence_loss
from storage.config import changed

GQA = ModelConfig(
    vocab_size=97, n_layers=3, n_heads=4, n_kv_heads=2, d_model=32, d_ff=56, max_seq_len=24, rope_theta=500.0
)
SHAPES = {
    "grouped-untied": changed(GQA, tie_embeddings=False),
    "grouped-tied": GQA,
    "multi-head-untied": changed(GQA, n_kv_heads=4, tie_embeddings=False),
    "multi-query-tied": changed(GQA, n_kv_heads=1, norm_eps=1e-3),
}

# Both sum the same float32 numbers, possibly in another order: a few units in the last of 24 bits.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def random_ids(config: ModelConfig, batch: int, length: int) -> Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(length))


def llama(config: ModelConfig) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**llama_config(config, eot_id=0))).eval()


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_logits_of_our_weights_equal_llama(config: ModelConfig) -> None:
    ours, theirs = Transformer(config), llama(config)
    missing, unexpected = theirs.load_state_dict(to_llama(ours.state_dict()), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"] if config.tie_embeddings else [], [])
    ids = random_ids(config, 3, config.max_seq_len)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(input_ids=ids).logits, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_logits_of_llamas_weights_equal_llama(config: ModelConfig) -> None:
    ours, theirs = Transformer(config), llama(config)
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms too: Llama starts them at 1, where an error would hide
            parameter.normal_(std=0.3)
    state = theirs.state_dict()
    if config.tie_embeddings:
        del state["lm_head.weight"]
    ours.load_state_dict(from_llama(state))
    ids = random_ids(config, 2, 9)
    with torch.inference_mode():
        wanted = theirs(input_ids=ids).logits
        torch.testing.assert_close(ours(ids), wanted, rtol=TOLERANCE, atol=TOLERANCE * float(wanted.abs().max()))


@settings(max_examples=20, deadline=None)
@given(position=st.integers(0, 23), token=st.integers(0, 96))
def test_changed_token_leaves_earlier_logits_untouched(position: int, token: int) -> None:
    torch.manual_seed(3)
    model, ids = Transformer(GQA), random_ids(GQA, 1, 24)
    other = ids.clone()
    other[0, position] = token
    with torch.inference_mode():
        before, after = model(ids)[0], model(other)[0]
    torch.testing.assert_close(after[:position], before[:position], rtol=0, atol=1e-6)
    if token != ids[0, position]:
        assert not torch.allclose(after[position:], before[position:], atol=1e-6)


def test_logits_do_not_depend_on_what_else_is_in_the_batch_or_behind() -> None:
    model, ids = Transformer(GQA), random_ids(GQA, 3, 20)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids)[1:2, :11], model(ids[1:2, :11]), rtol=TOLERANCE, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    n_layers=st.integers(1, 3),
    n_kv_heads=st.integers(1, 3),
    shared=st.integers(1, 3),
    half_width=st.integers(1, 4),
    d_ff=st.integers(1, 20),
    vocab_size=st.integers(1, 50),
    tied=st.booleans(),
)
def test_parameter_count_equals_the_instantiated_model(
    n_layers: int, n_kv_heads: int, shared: int, half_width: int, d_ff: int, vocab_size: int, tied: bool
) -> None:
    n_heads = n_kv_heads * shared
    config = ModelConfig(
        vocab_size=vocab_size,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_model=n_heads * 2 * half_width,
        d_ff=d_ff,
        max_seq_len=8,
        tie_embeddings=tied,
    )
    with torch.device("meta"):
        model = Transformer(config)
    assert count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(11)
    first = Transformer(GQA).state_dict()
    torch.manual_seed(11)
    second = Transformer(GQA).state_dict()
    with torch.device("meta"):
        empty = Transformer(GQA)
    third = empty.to_empty(device="cpu").init_weights(torch.Generator().manual_seed(11)).state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, second[name])
        assert torch.equal(weight, third[name])


def test_initial_weights_have_the_stated_spread() -> None:
    model = Transformer(changed(GQA, d_model=128, d_ff=512, vocab_size=2000, tie_embeddings=False))
    assert model.head is not None
    layer = model.layers[0]
    for weight in (model.embedding.weight, model.head.weight, layer.feed_forward.up.weight):
        assert float(weight.detach().std()) == pytest.approx(INIT_STD, rel=0.03)
    for weight in (layer.attention.out.weight, layer.feed_forward.down.weight):
        assert float(weight.detach().std()) == pytest.approx(INIT_STD / 6**0.5, rel=0.03)
    assert bool((model.norm.weight == 1).all())


def test_every_parameter_receives_a_gradient() -> None:
    model, ids = Transformer(changed(GQA, tie_embeddings=False)), random_ids(GQA, 2, 24)
    loss, count = sequence_loss(model(ids[:, :-1]), ids[:, 1:], torch.ones(2, 23, dtype=torch.bool))
    (loss / count).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_sequence_loss_equals_the_sum_over_unmasked_positions() -> None:
    logits, targets = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    mask = torch.tensor([[True, True, False, True, False], [False] * 5])
    loss, count = sequence_loss(logits, targets, mask)
    wanted = -sum(float(F.log_softmax(logits[0, t], dim=-1)[targets[0, t]]) for t in (0, 1, 3))
    assert float(loss) == pytest.approx(wanted, rel=1e-6)
    assert int(count) == 3
    assert loss.dtype == torch.float32


def test_sequence_loss_of_nothing_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 4, 7, requires_grad=True)
    loss, count = sequence_loss(logits, torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.bool))
    loss.backward()
    assert (float(loss.detach()), int(count)) == (0.0, 0)
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())


def test_sequence_loss_of_bfloat16_logits_is_summed_in_float32() -> None:
    logits, targets = torch.randn(2, 6, 11).bfloat16(), torch.randint(11, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    assert torch.equal(sequence_loss(logits, targets, mask)[0], sequence_loss(logits.float(), targets, mask)[0])


def test_model_under_bfloat16_autocast_stays_close_to_float32() -> None:
    model, ids = Transformer(GQA), random_ids(GQA, 2, 24)
    with torch.inference_mode():
        wanted = model(ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(ids).float()
    # bfloat16 keeps 8 bits; the rounding of a few layers adds up.
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


def test_sequence_longer_than_max_seq_len_is_refused() -> None:
    with pytest.raises(ValueError, match="max_seq_len=24 tokens, found 25"):
        Transformer(GQA)(random_ids(GQA, 1, 25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 3, "n_kv_heads": 3}, "even head width"),
        ({"d_model": 36}, "even head width"),
        ({"n_kv_heads": 3}, "multiple of n_kv_heads"),
        ({"n_layers": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_shape_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(GQA, **change)
