"""The rope family against what its definition promises; equality with Llama and GPT-NeoX is in test_export."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from model.families.rope.config import RopeConfig
from model.families.rope.network import RopeModel
from model.layers.basic import INIT_STD, init_weights
from storage.config import changed

GROUPED = RopeConfig(
    vocab_size=97, n_layers=3, n_heads=4, n_kv_heads=2, d_model=32, d_ff=56, max_seq_len=24, rope_theta=500.0
)
FORMS = {
    "grouped-tied": GROUPED,
    "multi-query-untied": changed(GROUPED, n_kv_heads=1, tie_embeddings=False),
    "gelu": changed(GROUPED, n_kv_heads=4, feed_forward="gelu"),
}
each_form = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)

# The same float32 numbers summed in another order: a few units in the last of 24 bits.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def make_model(config: RopeConfig) -> RopeModel:
    """Return a model in which positions and attention matter: new weights are so small that little does."""
    model = RopeModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.2
    return model


def random_ids(batch: int, length: int) -> Tensor:
    return torch.randint(GROUPED.vocab_size, (batch, length), generator=torch.Generator().manual_seed(length))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


@settings(max_examples=20, deadline=None)
@given(position=st.integers(0, 23), token=st.integers(0, 96), form=st.sampled_from(sorted(FORMS)))
def test_changed_token_leaves_earlier_logits_untouched(position: int, token: int, form: str) -> None:
    torch.manual_seed(3)
    model, ids = make_model(FORMS[form]), random_ids(1, 24)
    other = ids.clone()
    other[0, position] = token
    with torch.inference_mode():
        before, after = model(ids)[0], model(other)[0]
    torch.testing.assert_close(after[:position], before[:position], rtol=0, atol=1e-5)
    if token != ids[0, position]:
        assert not torch.allclose(after[position:], before[position:], atol=1e-3)


@each_form
def test_logits_depend_on_the_row_before_a_token_alone(config: RopeConfig) -> None:
    model, ids = make_model(config), random_ids(3, 20)
    with torch.inference_mode():
        close(model(ids)[1:2, :11], model(ids[1:2, :11]))


@each_form
@pytest.mark.parametrize("pieces", [[20], [7, 1, 1, 11], [1] * 20])
def test_cache_continues_as_the_whole_would(config: RopeConfig, pieces: list[int]) -> None:
    model, ids = make_model(config), random_ids(2, 20)
    cache = model.new_cache()
    with torch.inference_mode():
        found = torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1)
        close(found, model(ids))


@each_form
def test_padded_row_continues_as_if_alone(config: RopeConfig) -> None:
    model, ids = make_model(config), random_ids(2, 20)
    documents = torch.tensor([[0] * 5 + [1] * 7, [1] * 12])
    cache = model.new_cache()
    with torch.inference_mode():
        first, second = model(ids[:, :12], documents, cache), model(ids[:, 12:], cache=cache)
        close(torch.cat((first[0, 5:], second[0])), model(ids[:1, 5:])[0])
        close(torch.cat((first[1], second[1])), model(ids[1:])[0])


def test_sequence_may_outgrow_what_was_trained() -> None:
    assert make_model(GROUPED)(random_ids(1, 40)).shape == (1, 40, 97)


@each_form
def test_weights_follow_from_the_seed_alone(config: RopeConfig) -> None:
    torch.manual_seed(11)
    first = RopeModel(config).state_dict()
    torch.manual_seed(11)
    second = RopeModel(config).state_dict()
    with torch.device("meta"):
        empty = RopeModel(config)
    torch.manual_seed(11)
    init_weights(empty.to_empty(device="cpu"))
    third = empty.state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, second[name])
        assert torch.equal(weight, third[name])


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu"])
def test_initial_weights_have_the_stated_spread(feed_forward: str) -> None:
    config = changed(GROUPED, d_model=128, d_ff=512, n_kv_heads=4, vocab_size=2000, tie_embeddings=False)
    state = RopeModel(changed(config, feed_forward=feed_forward)).state_dict()
    for name, weight in state.items():
        if name.endswith("bias"):
            assert bool((weight == 0).all())
        elif "norm" in name:
            assert bool((weight == 1).all())
        else:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            assert float(weight.std()) == pytest.approx(INIT_STD / 6**0.5 if residual else INIT_STD, rel=0.03)


@each_form
def test_every_parameter_receives_a_gradient(config: RopeConfig) -> None:
    model, ids = RopeModel(config), random_ids(2, 24)
    torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the keys adds the same to all logits of a query, which attention does not see.
        if not name.endswith("k_proj.bias"):
            assert float(parameter.grad.abs().max()) > 0, name


def test_dropout_acts_in_training_alone() -> None:
    model, ids = RopeModel(changed(GROUPED, dropout=0.5)), random_ids(1, 24)
    with torch.no_grad():
        assert not torch.equal(model(ids), model(ids))
        model.eval()
        assert torch.equal(model(ids), model(ids))


def test_model_under_bfloat16_autocast_stays_close_to_float32() -> None:
    model, ids = RopeModel(GROUPED).eval(), random_ids(2, 24)
    with torch.inference_mode():
        wanted = model(ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(ids).float()
    # bfloat16 keeps 8 bits; the rounding of a few layers adds up.
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 3, "n_kv_heads": 3}, "even head width"),
        ({"d_model": 36}, "even head width"),
        ({"n_kv_heads": 3}, "multiple of n_kv_heads"),
        ({"feed_forward": "gelu"}, "must equal n_heads"),
        ({"n_layers": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_shape_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        changed(GROUPED, **change)
