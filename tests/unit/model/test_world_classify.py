"""Classification against the heads' definition, and that it leaves everything as it was."""

import pytest
import torch
from torch import Tensor

from model.evaluation.classify import classify
from model.families.presets import find_preset
from model.families.registry import build_model
from model.families.world.network import WorldModel
from model.families.world.presets import WORLD_1M, hybrid
from model.layers.cache import Cache
from model.layers.prompts import pad_prompts
from storage.config import changed

CONFIG = changed(WORLD_1M, d_model=32, num_experts=4, vocab_size=97)
EOT, TONE, FIELD = 0, 95, 96
PROBES = {"tone": TONE, "field": FIELD}
# The same sums in another order.
TOLERANCE = 1e-5


@pytest.fixture
def model() -> WorldModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    assert isinstance(model, WorldModel)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain_" in name:
                parameter.uniform_(0.2, 1)
            if "head" in name:
                parameter.mul_(30)
    return model


def random_ids(batch: int, length: int) -> Tensor:
    return torch.randint(1, 95, (batch, length), generator=torch.Generator().manual_seed(length))


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def read(model: WorldModel, ids: Tensor, cache: Cache | None = None) -> Tensor:
    with torch.inference_mode():
        return model(ids, cache=cache)


@pytest.mark.parametrize("eot_id", [None, EOT])
def test_heads_are_read_at_their_probes(model: WorldModel, eot_id: int | None) -> None:
    ids = random_ids(3, 20)
    ends = torch.tensor([token for token in (eot_id, TONE, FIELD) if token is not None]).expand(3, -1)
    hidden = model.hidden(torch.cat((ids, ends), dim=1)).detach()
    wanted = {
        "tone": model.tone_head(hidden[:, -2]).detach().softmax(-1),
        "field": model.field_head(hidden[:, -1]).detach().softmax(-1),
    }
    found = classify(model, ids, PROBES, eot_id=eot_id)
    close(found, wanted)
    assert (found["tone"].shape, found["field"].shape) == ((3, 6), (3, 12))
    torch.testing.assert_close(found["tone"].sum(-1), torch.ones(3))
    assert float(found["tone"].max()) > 0.3  # not uniform, else little was compared


def test_padded_text_is_classified_as_if_alone(model: WorldModel) -> None:
    texts = [[5, 9, 3, 4, 60], [8], [1, 2, 3]]
    ids, mask = pad_prompts(texts, EOT)
    together = classify(model, ids, PROBES, eot_id=EOT, attention_mask=mask)
    for row, text in enumerate(texts):
        alone = classify(model, torch.tensor([text]), PROBES, eot_id=EOT)
        close(alone, {kind: chances[row : row + 1] for kind, chances in together.items()})


@pytest.mark.parametrize("reading", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_cache_that_was_filled_in_any_mode_is_classified_and_read_on(model: WorldModel, reading) -> None:
    ids = random_ids(2, 30)
    with reading():
        cache = model.new_cache()
        model(ids[:, :20], cache=cache)
        found = classify(model, ids[:, 20:], PROBES, cache=cache)
        close(found, classify(model, ids, PROBES))
        torch.testing.assert_close(model(ids[:, 20:], cache=cache), model(ids)[:, 20:], rtol=0, atol=TOLERANCE)


def test_gradients_flow_through_a_clone_as_through_a_tensor(model: WorldModel) -> None:
    ids, found = random_ids(1, 12), []
    for copied in (True, False):
        cache = model.new_cache()
        model(ids[:, :8], cache=cache)
        logits = model(ids[:, 8:], cache=cache.clone()) if copied else model(ids)[:, 8:]
        found.append(torch.autograd.grad(logits.square().sum(), model.embed_tokens.weight)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("split", [1, 12, 30])
def test_text_in_the_cache_counts(model: WorldModel, split: int) -> None:
    ids = random_ids(2, 30)
    cache = model.new_cache()
    read(model, ids[:, :split], cache)
    found = classify(model, ids[:, split:], PROBES, cache=cache)
    close(found, classify(model, ids, PROBES))
    close(classify(model, ids, PROBES, cache=model.new_cache()), found)


@pytest.mark.parametrize("extra", [0, 4])
def test_cache_stays_as_it_is(model: WorldModel, extra: int) -> None:
    ids, later = random_ids(2, 25), random_ids(2, 9)
    cache, undisturbed = model.new_cache(), model.new_cache()
    for each in (cache, undisturbed):
        read(model, ids, each)
    classify(model, random_ids(2, extra) if extra else ids[:, :0], PROBES, eot_id=EOT, cache=cache)
    assert cache.length == 25
    for piece in later.split([1, 5, 3], dim=1):
        assert torch.equal(read(model, piece, cache), read(model, piece, undisturbed))


def test_dropout_and_mode_are_left_alone(model: WorldModel) -> None:
    wanted = classify(model, random_ids(2, 9), PROBES)
    model.train()
    close(classify(model, random_ids(2, 9), PROBES), wanted)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("preset", ["gpt2-tiny", "demo", "hybrid-1m"])
def test_model_without_heads_is_refused(preset: str) -> None:
    config = hybrid(CONFIG) if preset == "hybrid-1m" else changed(find_preset(preset), vocab_size=97)
    with pytest.raises(ValueError, match="must have classification heads"):
        classify(build_model(config), random_ids(1, 3), PROBES)


@pytest.mark.parametrize("cache", [False, True])
def test_empty_text_is_refused(model: WorldModel, cache: bool) -> None:
    with pytest.raises(ValueError, match="a token or more"):
        classify(model, random_ids(1, 3)[:, :0], PROBES, cache=model.new_cache() if cache else None)


def test_ids_that_the_model_lacks_are_refused(model: WorldModel) -> None:
    with pytest.raises(ValueError, match="between 0 and 96"):
        classify(model, random_ids(1, 3), {"tone": TONE, "field": 97})
    with pytest.raises(ValueError, match="between 0 and 96"):
        classify(model, random_ids(1, 3) + 96, PROBES)


def test_mask_with_a_cache_is_refused(model: WorldModel) -> None:
    cache = model.new_cache()
    read(model, random_ids(1, 3), cache)
    with pytest.raises(ValueError, match="attention_mask must be None"):
        classify(model, random_ids(1, 3), PROBES, attention_mask=torch.ones(1, 3), cache=cache)
