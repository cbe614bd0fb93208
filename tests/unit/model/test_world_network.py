"""The world model as a whole: what tokens may see, what the cache remembers, where it starts."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.families.estimate import count_parameters
from model.families.presets import PRESETS
from model.families.registry import build_model
from model.families.world.config import WorldConfig
from model.families.world.forward_context import ForwardContext, SuperblockContext
from model.families.world.measurements.layer_table import layer_table
from model.families.world.network import SIZE, WorldModel
from model.families.world.pattern import PATTERN
from model.families.world.presets import WORLD_1M, hybrid
from model.families.world.trace import Trace
from model.training.config import TrainConfig
from storage.config import changed

# Sums in another order; the logits of these models are about 1.
TOLERANCE = 1e-5
TWO_BLOCKS = changed(WORLD_1M, n_superblocks=2, d_model=32, num_experts=4, vocab_size=97)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def forced(config: WorldConfig, seed: int = 0) -> WorldModel:
    """A model whose context layers act strongly and whose norms are not at their start."""
    torch.manual_seed(seed)
    model = build_model(config)
    assert isinstance(model, WorldModel)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            if "gain_drop" in name or "gain_decay" in name:
                parameter.uniform_(0.5, 4)
            if "gain_write" in name:
                parameter.uniform_(0.2, 1)
            if "context" in name and "score" in name:
                parameter.normal_(std=2.0 if "weight" in name else 1.0)
    return model.eval()


MODEL = forced(TWO_BLOCKS)
UNTIED = forced(changed(TWO_BLOCKS, tie_embeddings=False, n_superblocks=1, router="softmax_aux"), seed=1)


def random_ids(config: WorldConfig, batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def read_in_pieces(model: WorldModel, ids: Tensor, sizes: list[int]) -> Tensor:
    cache = model.new_cache()
    return torch.cat([model(piece, cache=cache) for piece in ids.split(sizes, dim=1)], dim=1)


def test_new_context_layer_changes_no_bit() -> None:
    torch.manual_seed(0)
    model = build_model(WORLD_1M).eval()
    without = build_model(changed(WORLD_1M, context_rank=0)).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("context")}
    without.load_state_dict(state)
    ids = random_ids(WORLD_1M, 2, 150)
    with torch.inference_mode():
        assert torch.equal(model(ids), without(ids))
        cache, plain = model.new_cache(), without.new_cache()
        assert torch.equal(model(ids[:, :90], cache=cache), without(ids[:, :90], cache=plain))
        assert torch.equal(model(ids[:, 90:91], cache=cache), without(ids[:, 90:91], cache=plain))
    # In training attention adds the bias, so that its gains get a gradient; torch then takes another kernel.
    torch.testing.assert_close(model.train()(ids), without.train()(ids), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", [MODEL, UNTIED], ids=["two superblocks", "softmax, untied"])
def test_changed_token_changes_nothing_before_it_and_something_after(model: WorldModel) -> None:
    ids = random_ids(model.config, 1, 120)
    other = ids.clone()
    other[0, 70] = (other[0, 70] + 1) % model.config.vocab_size
    with torch.inference_mode():
        difference = (model(ids) - model(other)).abs().amax(dim=(0, 2))
    assert difference[:70].max() == 0
    assert (difference[70:] > 0).all()


@pytest.mark.parametrize("place", [0, 3], ids=["DeltaNet", "attention"])
def test_each_kind_of_sublayer_is_causal(place: int) -> None:
    """By itself and with the context layer acting, so that no other sublayer can hide a leak."""
    torch.manual_seed(0)
    x = torch.randn(1, 100, TWO_BLOCKS.d_model)
    other = x.clone()
    other[0, 60] += 1

    def run(x_BTC: Tensor) -> Tensor:
        context = SuperblockContext(MODEL.context[0], TWO_BLOCKS.context_window, x_BTC, None)
        rotation = (torch.ones(100, TWO_BLOCKS.rotary_dim), torch.zeros(100, TWO_BLOCKS.rotary_dim))
        around = ForwardContext(rotation, None, True, None, context, None, None)
        return MODEL.layers[place](x_BTC, around)

    assert MODEL.layers[place].kind == PATTERN[place]
    with torch.inference_mode():
        difference = (run(x) - run(other)).abs().amax(dim=(0, 2))
    assert difference[:60].max() == 0
    assert (difference[60:] > 0).all()


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 89), max_size=4, unique=True), seed=st.integers(0, 5))
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(cuts: list[int], seed: int) -> None:
    ids = random_ids(TWO_BLOCKS, 2, 90, seed)
    edges = [0, *sorted(cuts), 90]
    with torch.inference_mode():
        pieces = read_in_pieces(MODEL, ids, [b - a for a, b in pairwise(edges)])
        torch.testing.assert_close(pieces, MODEL(ids), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", [MODEL, UNTIED], ids=["two superblocks", "softmax, untied"])
def test_token_by_token_equals_reading_at_once(model: WorldModel) -> None:
    ids = random_ids(model.config, 2, 80)
    with torch.inference_mode():
        torch.testing.assert_close(read_in_pieces(model, ids, [50] + [1] * 30), model(ids), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("lengths", [(60, 50, 40), (1, 2, 147), (149, 1), (64, 64, 22)], ids=str)
def test_packed_documents_equal_separate_ones(lengths: tuple[int, ...]) -> None:
    ids = random_ids(TWO_BLOCKS, 2, sum(lengths))
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).expand(2, -1)
    with torch.inference_mode():
        separate = torch.cat([MODEL(piece) for piece in ids.split(lengths, dim=1)], dim=1)
        torch.testing.assert_close(MODEL(ids, documents), separate, rtol=0, atol=TOLERANCE)


def test_prompts_padded_on_the_left_continue_as_if_alone() -> None:
    long, short = random_ids(TWO_BLOCKS, 1, 60), random_ids(TWO_BLOCKS, 1, 41, seed=1)
    padded = torch.cat((long, torch.cat((torch.zeros(1, 19, dtype=torch.int64), short), dim=1)))
    documents = torch.zeros_like(padded)
    documents[1, :19] = -1
    later = random_ids(TWO_BLOCKS, 2, 5, seed=2)
    with torch.inference_mode():
        cache = MODEL.new_cache()
        first = MODEL(padded, documents, cache)
        found = [MODEL(later[:, i : i + 1], cache=cache) for i in range(5)]
        for row, prompt in enumerate((long, short)):
            alone = MODEL(torch.cat((prompt, later[row : row + 1]), dim=1))
            together = torch.cat([first[row : row + 1, -prompt.shape[1] :], *(x[row : row + 1] for x in found)], 1)
            torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)


def test_document_numbers_after_the_first_tokens_of_a_cache_are_refused() -> None:
    cache = MODEL.new_cache()
    ids = random_ids(TWO_BLOCKS, 1, 4)
    MODEL(ids, cache=cache)
    with pytest.raises(ValueError, match="document numbers must be given with the first tokens"):
        MODEL(ids, torch.zeros_like(ids), cache)


def test_clone_of_a_cache_is_independent() -> None:
    ids = random_ids(TWO_BLOCKS, 1, 30)
    with torch.inference_mode():
        cache = MODEL.new_cache()
        MODEL(ids[:, :20], cache=cache)
        copy = cache.clone()
        MODEL(ids[:, 25:28], cache=copy)
        torch.testing.assert_close(MODEL(ids[:, 20:], cache=cache), MODEL(ids)[:, 20:], rtol=0, atol=TOLERANCE)


def test_trace_holds_every_router_and_superblock() -> None:
    trace = Trace()
    with torch.inference_mode():
        MODEL.hidden(random_ids(TWO_BLOCKS, 2, 70), trace=trace)
    assert len(trace.routers) == TWO_BLOCKS.n_layers
    assert len(trace.contexts) == len(trace.queries_keys) == TWO_BLOCKS.n_superblocks
    assert all(int(router.counts_E.sum()) == 140 * TWO_BLOCKS.top_k for router in trace.routers)
    queries, keys = trace.queries_keys[0]
    assert queries.shape == (2, TWO_BLOCKS.n_heads, 70, TWO_BLOCKS.head_dim)
    assert keys.shape == (2, TWO_BLOCKS.n_kv_heads, 70, TWO_BLOCKS.head_dim)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if isinstance(preset, WorldConfig)])
def test_layer_table_holds_every_parameter_once(name: str) -> None:
    config = PRESETS[name]
    assert isinstance(config, WorldConfig)
    with torch.device("meta"):
        model = build_model(config)
    assert isinstance(model, WorldModel)
    rows = layer_table(model)
    assert len(rows) == SIZE * config.n_superblocks + 5
    assert [row.number for row in rows] == list(range(len(rows)))
    assert sum(row.parameters for row in rows) == count_parameters(config)
    if name == "world-235b":
        assert len(rows) == 101
        assert sum("DeltaNet" in row.content for row in rows) == 72
        assert sum("attention" in row.content for row in rows) == 24
        assert abs(count_parameters(config) / 235e9 - 1) < 1e-3


def test_state_of_a_model_is_what_belongs_to_it() -> None:
    state = MODEL.state_dict()
    assert sum("e_score_correction_bias" in name for name in state) == TWO_BLOCKS.n_layers
    assert not any(name.endswith(".load") for name in state)
    extra = ("context.", "tone_head.", "field_head.")
    assert any(name.startswith(extra) for name in state)
    assert not any(name.startswith(extra) for name in build_model(hybrid(WORLD_1M)).state_dict())


def test_every_parameter_has_a_gradient_but_for_scores_that_nothing_uses_yet() -> None:
    torch.manual_seed(0)
    model = build_model(changed(TWO_BLOCKS, tie_embeddings=False))
    hidden = model.hidden(random_ids(TWO_BLOCKS, 2, 70))
    assert isinstance(model, WorldModel)
    (
        model.logits(hidden).square().sum() + model.tone_head(hidden).sum() + model.field_head(hidden).sum()
    ).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without
    zero = {name for name, p in model.named_parameters() if p.grad is not None and not p.grad.abs().sum()}
    assert all("context" in name and "gain" not in name for name in zero), zero


def test_training_config_takes_a_world_shape_by_name() -> None:
    config = TrainConfig.model_validate({"model": {"preset": "world-1m", "top_k": 2}})
    assert dict(config.model) == {
        **{k: v for k, v in WORLD_1M if k not in ("vocab_size", "max_seq_len")},
        "top_k": 2,
    }
