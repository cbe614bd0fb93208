"""GPT-2 against what its definition promises; equality with transformers' GPT-2 is in test_export."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from model.families.gpt2.config import GPT2Config
from model.families.gpt2.network import GPT2
from model.families.gpt2.presets import GPT2_124M
from model.layers.basic import INIT_STD, init_weights
from storage.config import changed

CONFIG = GPT2Config(vocab_size=97, n_layers=3, n_heads=4, d_model=32, max_seq_len=24)

# The same float32 numbers summed in another order: a few units in the last of 24 bits.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def model() -> GPT2:
    model = GPT2(CONFIG).eval()
    with torch.no_grad():  # new weights are so small that neither positions nor attention would matter
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.2
    return model


def random_ids(batch: int, length: int) -> Tensor:
    return torch.randint(CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(length))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        model = GPT2(GPT2_124M)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


@pytest.mark.parametrize("position", [0, 9, 23])
def test_changed_token_leaves_earlier_logits_untouched(model: GPT2, position: int) -> None:
    ids = random_ids(1, 24)
    other = ids.clone()
    other[0, position] = (ids[0, position] + 1) % CONFIG.vocab_size
    with torch.inference_mode():
        before, after = model(ids)[0], model(other)[0]
    torch.testing.assert_close(after[:position], before[:position], rtol=0, atol=1e-5)
    assert not torch.allclose(after[position:], before[position:], atol=1e-3)


@pytest.mark.parametrize("pieces", [[20], [7, 1, 1, 11], [1] * 20])
def test_cache_continues_as_the_whole_would(model: GPT2, pieces: list[int]) -> None:
    ids, cache = random_ids(2, 20), model.new_cache()
    with torch.inference_mode():
        found = torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1)
        close(found, model(ids))


def test_padded_row_continues_as_if_alone(model: GPT2) -> None:
    ids, cache = random_ids(2, 20), model.new_cache()
    documents = torch.tensor([[0] * 5 + [1] * 7, [1] * 12])
    with torch.inference_mode():
        first, second = model(ids[:, :12], documents, cache), model(ids[:, 12:], cache=cache)
        close(torch.cat((first[0, 5:], second[0])), model(ids[:1, 5:])[0])
        close(torch.cat((first[1], second[1])), model(ids[1:])[0])


def test_sequence_beyond_the_learned_positions_is_refused(model: GPT2) -> None:
    with pytest.raises(ValueError, match=r"max_seq_len=24 tokens, found 25"):
        model(random_ids(1, 25))
    cache = model.new_cache()
    with torch.inference_mode():
        model(random_ids(1, 24), cache=cache)
        with pytest.raises(ValueError, match="found 25"):
            model(random_ids(1, 1), cache=cache)


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(11)
    first = GPT2(CONFIG).state_dict()
    with torch.device("meta"):
        empty = GPT2(CONFIG)
    torch.manual_seed(11)
    init_weights(empty.to_empty(device="cpu"))
    assert all(torch.equal(weight, empty.state_dict()[name]) for name, weight in first.items())


def test_initial_weights_have_the_published_spread() -> None:
    for name, weight in GPT2(changed(CONFIG, d_model=128, vocab_size=2000, max_seq_len=256)).state_dict().items():
        if name.endswith("bias"):
            assert bool((weight == 0).all())
        elif "ln_" in name:
            assert bool((weight == 1).all())
        else:
            residual = name.endswith("c_proj.weight")
            assert float(weight.std()) == pytest.approx(INIT_STD / 6**0.5 if residual else INIT_STD, rel=0.03)


def test_every_parameter_receives_a_gradient() -> None:
    model, ids = GPT2(CONFIG), random_ids(2, 24)
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_impossible_shape_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of n_heads"):
        changed(CONFIG, n_heads=5)
