"""What holds for the documents of a packed row in every family."""

import pytest
import torch

from model.families.gpt2.config import GPT2Config
from model.families.presets import PRESETS
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.config import WorldConfig
from model.families.world.presets import WORLD_1M
from model.layers.language_model import LanguageModel
from storage.config import changed

# The same float32 numbers summed in another order: a few units in the last of 24 bits.
TOLERANCE = 1e-5
ROPE = changed(PRESETS["demo"], n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=56, vocab_size=97)
FAMILIES: dict[str, GPT2Config | RopeConfig | WorldConfig] = {
    "gpt2": changed(PRESETS["gpt2-tiny"], n_layers=2, n_heads=4, d_model=32, vocab_size=97),
    "rope-grouped-tied": ROPE,
    "rope-untied": changed(ROPE, tie_embeddings=False, n_kv_heads=4),
    "rope-multi-query": changed(ROPE, n_kv_heads=1),
    "rope-gelu": changed(ROPE, n_kv_heads=4, feed_forward="gelu"),
    "world": changed(WORLD_1M, n_superblocks=2, d_model=32, num_experts=4, vocab_size=97),
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """A model in which positions, attention and gains matter: new weights are so small that little does."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(request.param).eval()
    # A world model's decays and routers would amplify rounding beyond what is compared here.
    spread = 0.05 if request.param.family == "world" else 0.2
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * spread
    return model


def random_ids() -> torch.Tensor:
    return torch.randint(97, (2, 20), generator=torch.Generator().manual_seed(20))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


def test_packed_documents_are_as_if_alone(model: LanguageModel) -> None:
    ids, documents = random_ids(), torch.tensor([[4] * 7 + [5] * 13, [0] * 20])
    with torch.inference_mode():
        packed = model(ids, documents)
        close(packed[0, :7], model(ids[:1, :7])[0])
        close(packed[0, 7:], model(ids[:1, 7:])[0])
        close(packed[1], model(ids[1:])[0])


def test_a_document_number_that_comes_back_is_another_document(model: LanguageModel) -> None:
    ids = random_ids()
    documents = torch.tensor([[0] * 7 + [1] * 6 + [0] * 7, [5] * 20])
    apart = torch.tensor([[0] * 7 + [1] * 6 + [2] * 7, [0] * 20])
    with torch.inference_mode():
        assert torch.equal(model(ids, documents), model(ids, apart))
        cache, other = model.new_cache(), model.new_cache()
        model(ids[:, :14], documents[:, :14], cache)
        model(ids[:, :14], apart[:, :14], other)
        assert torch.equal(model(ids[:, 14:], cache=cache), model(ids[:, 14:], cache=other))
