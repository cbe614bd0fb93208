"""Generation of all families: greedy against transformers, cache against none, batches against single rows."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.families.base import ModelConfig
from model.families.gpt2.config import GPT2Config
from model.families.gpt2.network import GPT2
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.context.block_cache import ContextBlockCache, retention
from model.families.world.pattern import PATTERN
from model.families.world.presets import WORLD_1M
from model.generation.generate import generate, stream
from model.layers.basic import project
from model.layers.cache import Cache
from model.layers.eviction import RECENT, SINKS
from model.layers.language_model import LanguageModel
from model.layers.prompts import pad_prompts
from storage.config import changed

VOCAB = 97
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": GPT2Config(vocab_size=VOCAB, n_layers=2, n_heads=4, d_model=32, max_seq_len=160, dropout=0.1),
    "rope": RopeConfig(
        vocab_size=VOCAB, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_seq_len=160, dropout=0.1
    ),
    "rope-gelu": RopeConfig(
        vocab_size=VOCAB, n_layers=2, n_heads=4, n_kv_heads=4, d_model=32, d_ff=64, max_seq_len=160,
        feed_forward="gelu", tie_embeddings=False,
    ),
    "world": changed(WORLD_1M, n_superblocks=2, d_model=32, num_experts=4, vocab_size=VOCAB, max_seq_len=160),
}  # fmt: skip


def build(name: str) -> LanguageModel:
    """A model in which everything matters: clear preferences, moved norms, context layers that act."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    model = build_model(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "gain_" in parameter_name:
                parameter.uniform_(0.2, 1)
            elif "score" in parameter_name:
                parameter.normal_(std=2.0)
            elif parameter.dim() > 1 and "router" not in parameter_name:
                parameter.mul_(6)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


MODELS = {name: build(name) for name in CONFIGS}
RAGGED = [[5, 9, 11, 3, 7, 20, 4], [8, 2], [33, 1, 60, 12]]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    torch.set_num_threads(1)
    return MODELS[request.param].eval()


@pytest.fixture
def rope() -> LanguageModel:
    torch.set_num_threads(1)
    return MODELS["rope"].eval()


def prompt(batch: int = 2, length: int = 5) -> Tensor:
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(batch))


def transformers_gpt2() -> Any:
    """GPT2LMHeadModel with the weights of our model, whose matrices are stored transposed there."""
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    ours, config = MODELS["gpt2"], CONFIGS["gpt2"]
    assert isinstance(ours, GPT2)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": config.max_seq_len}
    theirs = GPT2LMHeadModel(TheirConfig(vocab_size=VOCAB, **shape)).eval()
    weights = {
        f"transformer.{name}": tensor.t()
        if name.endswith(("attn.weight", "c_proj.weight", "c_fc.weight"))
        else tensor
        for name, tensor in ours.state_dict().items()
    }
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert (set(missing), unexpected) == ({"lm_head.weight"}, [])
    return theirs


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.4}, {"repetition_penalty": 0.8}])
def test_greedy_text_equals_transformers(settings: dict[str, float]) -> None:
    ids = prompt(3, 7)
    fixed = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted = transformers_gpt2().generate(ids, attention_mask=torch.ones_like(ids), **fixed, **settings)
    found = generate(MODELS["gpt2"], ids, 64, **settings)  # type: ignore[arg-type]
    assert torch.equal(found, wanted)
    assert torch.equal(found[:, :7], ids)
    assert len(set(found.flatten().tolist())) > 10  # else little was compared


def test_greedy_text_of_a_ragged_batch_equals_transformers() -> None:
    ids, mask = pad_prompts(RAGGED, 0)
    fixed = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted = transformers_gpt2().generate(ids, attention_mask=mask, **fixed)
    assert torch.equal(generate(MODELS["gpt2"], ids, 64, attention_mask=mask), wanted)
    assert torch.equal(generate(MODELS["gpt2"], RAGGED, 64), wanted)


def test_cache_changes_no_token(model: LanguageModel) -> None:
    wanted = generate(model, RAGGED, 48, use_cache=False)
    assert torch.equal(generate(model, RAGGED, 48), wanted)
    assert torch.equal(generate(model, RAGGED, 48, kv_budget=69), wanted)
    settings: dict[str, Any] = {"do_sample": True, "repetition_penalty": 1.2, "seed": 4}
    sampled = generate(model, RAGGED, 48, use_cache=False, **settings)
    assert torch.equal(generate(model, RAGGED, 48, **settings), sampled)
    assert not torch.equal(sampled, wanted)


def test_padded_row_is_continued_as_if_alone(model: LanguageModel) -> None:
    together = generate(model, RAGGED, 40, repetition_penalty=1.1)
    for row, ids in zip(together, RAGGED, strict=True):
        alone = generate(model, torch.tensor([ids]), 40, repetition_penalty=1.1)
        assert torch.equal(row[7 - len(ids) :], alone[0])


def test_content_of_the_padding_does_not_matter(model: LanguageModel) -> None:
    ids, mask = pad_prompts(RAGGED, 0)
    other = torch.where(mask == 1, ids, 50)
    settings: dict[str, Any] = {"attention_mask": mask, "repetition_penalty": 1.5}
    assert torch.equal(generate(model, other, 20, **settings)[:, 7:], generate(model, ids, 20, **settings)[:, 7:])


def test_stream_yields_what_generate_appends(model: LanguageModel) -> None:
    settings: dict[str, Any] = {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 1}
    steps = list(stream(model, RAGGED, 12, **settings))
    assert torch.equal(torch.stack(steps, dim=1), generate(model, RAGGED, 12, **settings)[:, 7:])


def test_sample_depends_on_the_seed_and_not_on_the_global_state(rope: LanguageModel) -> None:
    settings: dict[str, Any] = {"do_sample": True, "temperature": 1.5}
    torch.manual_seed(1)
    first = generate(rope, prompt(), 16, seed=3, **settings)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = generate(rope, prompt(), 16, generator=torch.Generator().manual_seed(3), **settings)
    other = generate(rope, prompt(), 16, seed=4, **settings)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    generate(rope, prompt(), 16, **settings)
    assert torch.equal(state, torch.random.get_rng_state())


def test_generator_goes_on_where_it_stands(rope: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(3)
    texts = [generate(rope, prompt(), 8, do_sample=True, generator=generator) for _ in range(2)]
    assert not torch.equal(*texts)


def test_one_candidate_is_greedy(model: LanguageModel) -> None:
    greedy = generate(model, prompt(), 10)
    assert torch.equal(generate(model, prompt(), 10, temperature=0), greedy)
    assert torch.equal(generate(model, prompt(), 10, do_sample=True, top_k=1), greedy)
    assert torch.equal(generate(model, prompt(), 10, do_sample=True, top_p=1e-6), greedy)
    assert torch.equal(generate(model, prompt(), 10, temperature=7.0, top_k=3, top_p=0.1), greedy)


def test_stopped_row_is_filled_and_all_stopped_ends_early(rope: LanguageModel) -> None:
    free = generate(rope, prompt(1), 12)[0, 5:].tolist()
    stop = free[4]
    end = free.index(stop) + 1
    assert generate(rope, prompt(1), 12, stop_tokens=stop)[0, 5:].tolist() == free[:end]

    pair = torch.cat((prompt(1), prompt(1).flip(1)))
    both = generate(rope, pair, 12)[:, 5:].tolist()
    # The first is the padding, the second ends rows too; an iterator may be read once only.
    for stops in ([stop], [0, stop]):
        stopped = generate(rope, pair, 12, stop_tokens=iter(stops))[:, 5:].tolist()
        for row, unbroken in zip(stopped, both, strict=True):
            ends = [unbroken.index(token) + 1 for token in stops if token in unbroken]
            kept = min([*ends, len(row)])
            assert row[:kept] == unbroken[:kept]
            assert set(row[kept:]) <= {stops[0]}
        assert stop in stopped[0]


def test_suppressed_tokens_are_never_chosen(model: LanguageModel) -> None:
    free = generate(model, prompt(4), 20)[:, 5:]
    suppressed = set(free[:, :3].flatten().tolist())
    for settings in ({}, {"do_sample": True, "seed": 0, "temperature": 3.0}):
        found = generate(model, prompt(4), 20, suppress_tokens=suppressed, **settings)[:, 5:]  # type: ignore[arg-type]
        assert not suppressed & set(found.flatten().tolist())


def test_no_new_tokens_returns_the_prompt(model: LanguageModel) -> None:
    assert torch.equal(generate(model, prompt(), 0), prompt())
    assert list(stream(model, prompt(), 0)) == []


def test_training_mode_is_left_as_it_was_and_not_used(model: LanguageModel) -> None:
    wanted = generate(model, prompt(), 10)
    model.train()
    frozen = next(iter(model.children()))
    frozen.eval()
    steps = stream(model, prompt(), 10)
    found = [next(steps)]
    assert model.training
    assert not frozen.training
    found += steps
    assert torch.equal(torch.stack(found, dim=1), wanted[:, 5:])
    assert model.training
    assert not frozen.training


def test_generated_tokens_can_be_trained_on(model: LanguageModel) -> None:
    model(generate(model, prompt(), 5)).sum().backward()
    model.zero_grad()


def test_text_up_to_the_last_learned_position_is_generated_and_not_beyond(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert generate(MODELS["gpt2"], prompt(1, 150), 10).shape == (1, 160)
    with pytest.raises(ValueError, match=r"max_seq_len=160 together.*150 \+ 11.*lower max_new_tokens"):
        stream(MODELS["gpt2"], prompt(1, 150), 11)
    with caplog.at_level(logging.WARNING):
        assert generate(MODELS["rope"], prompt(1, 150), 10).shape == (1, 160)
        assert not caplog.records
        assert generate(MODELS["rope"], prompt(1, 150), 13).shape == (1, 163)
    assert [record.getMessage().count("max_seq_len=160") for record in caplog.records] == [1]


# ---- a cache of limited size ---------------------------------------------------------------------


@pytest.fixture
def caches(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[Cache]:
    """The caches that generation makes, and in each block the number of keys before every eviction."""
    made: list[Cache] = []
    new_cache, evict = model.new_cache, Cache.evict

    def noted_cache(capacity: int = 0) -> Cache:
        made.append(new_cache(capacity))
        return made[-1]

    def noted_evict(cache: Cache, budget: int) -> None:
        for block in cache.blocks:
            block.lengths = [*getattr(block, "lengths", []), block.length]  # type: ignore[attr-defined]
        evict(cache, budget)

    monkeypatch.setattr(model, "new_cache", noted_cache)
    monkeypatch.setattr(Cache, "evict", noted_evict)
    return made


def test_evicting_cache_stays_within_its_budget(model: LanguageModel, caches: list[Cache]) -> None:
    budget, long = SINKS + RECENT + 4, [list(range(1, 71)), [5, 6, 7], list(range(10, 90))]
    steps = stream(model, long, 50, kv_budget=budget)
    for number, _ in enumerate(steps):
        for block in caches[0].blocks:
            assert {layer.length for layer in block.attention} == {budget}
            assert block.row_numbers(3, model.device).shape == (3, budget)
            assert block.read == 80 + number
    for block in caches[0].blocks:
        assert block.lengths == [80] + 49 * [budget + 1]  # type: ignore[attr-defined]


def test_layers_of_a_block_keep_the_same_keys(model: LanguageModel, caches: list[Cache]) -> None:
    budget, ids = SINKS + RECENT + 8, prompt(2, 120)
    next(stream(model, ids, 2, kv_budget=budget))
    whole = model.new_cache()
    with torch.inference_mode():
        model.hidden(ids, None, whole)
    for kept, full in zip(caches[0].blocks, whole.blocks, strict=True):
        rows_BN = kept.row_numbers(2, model.device)
        for one, other in zip(kept.attention, full.attention, strict=True):
            length, width = other.length, other.buffer_2BHKD.shape[-1]  # type: ignore[union-attr]
            everything = other.buffer_2BHKD[:, :, :, :length]  # type: ignore[index]
            index = rows_BN[None, :, None, :, None].expand(2, -1, everything.shape[2], -1, width)
            found = one.buffer_2BHKD[:, :, :, :budget]  # type: ignore[index]
            assert torch.equal(found, everything.gather(3, index))
        if not isinstance(full, ContextBlockCache):
            always = [*range(SINKS), *range(120 - budget + SINKS, 120)]
            assert rows_BN.tolist() == [always, always]
        else:
            assert full.context_BK2 is not None
            importance, urgency = full.context_BK2.unbind(-1)
            worth = retention(importance, urgency, 119 - torch.arange(120), model.config.context_window)
            worth[:, [*range(SINKS), *range(120 - RECENT, 120)]] = 2.0
            best = worth.argsort(dim=1, descending=True)[:, :budget].sort(dim=1).values
            assert torch.equal(rows_BN, best)


def test_superblocks_choose_their_keys_apart() -> None:
    model = MODELS["world"]
    cache = model.new_cache()
    with torch.inference_mode():
        model.hidden(prompt(1, 150), None, cache)
        cache.evict(80)
    first, second = (block.row_numbers(1, model.device).tolist() for block in cache.blocks)
    assert first != second
    assert [len(block.attention) for block in cache.blocks] == 2 * [PATTERN.count("A")]


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "end-of-text"),
        (torch.zeros(0, 3, dtype=torch.long), "a token or more"),
        (torch.zeros(3, dtype=torch.long), "shape"),
        (torch.zeros(1, 3), "int64"),
        (torch.tensor([[0, VOCAB]]), f"between 0 and {VOCAB - 1}"),
        (torch.tensor([[0, -1]]), f"between 0 and {VOCAB - 1}"),
        ([], "a token or more"),
        ([[1], []], "a token or more"),
        ([[VOCAB]], "between 0"),
    ],
)
def test_prompt_that_cannot_be_is_refused(rope: LanguageModel, ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(rope, ids, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be"),
        ({"do_sample": True, "temperature": 0.0}, "temperature must be"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"top_k": -1}, "top_k must be"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be"),
        ({"seed": 1, "generator": torch.Generator()}, "not both"),
        ({"stop_tokens": VOCAB}, "stop_tokens must be"),
        ({"suppress_tokens": [-1]}, "suppress_tokens must be"),
        ({"suppress_tokens": range(VOCAB)}, "leave a token"),
        ({"kv_budget": 68}, "at least 69"),
        ({"kv_budget": 90, "use_cache": False}, "use_cache=True"),
        ({"attention_mask": torch.ones(2, 4)}, "shape"),
        ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])}, "on the left"),
        ({"attention_mask": torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]])}, "on the left"),
        ({"attention_mask": torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])}, "on the left"),
        ({"attention_mask": torch.tensor([[0, 0, 1, 1, 2], [1, 1, 1, 1, 1]])}, "other numbers"),
        ({"attention_mask": torch.tensor([[0.5, 1, 1, 1, 1], [1, 1, 1, 1, 1]])}, "other numbers"),
        ({"attention_mask": torch.tensor([[-1, 0, 1, 1, 1], [1, 1, 1, 1, 1]])}, "other numbers"),
    ],
)
def test_impossible_settings_are_refused(rope: LanguageModel, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(rope, prompt(), **{"max_new_tokens": 3, **settings})


def test_lists_of_ids_take_no_mask(rope: LanguageModel) -> None:
    with pytest.raises(ValueError, match="must be None for lists"):
        generate(rope, [[1, 2]], 3, attention_mask=torch.ones(1, 2))


@pytest.mark.parametrize("wrong", [[1, 2, 3], 5])
def test_prompts_that_are_no_lists_of_ids_are_refused(rope: LanguageModel, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"prompts must be lists of ids.*\[\[1, 2, 3\]\]"):
        generate(rope, wrong)


def test_stop_token_may_be_a_number_in_a_tensor(rope: LanguageModel) -> None:
    plain = generate(rope, prompt(), 30)
    stop = int(plain[0, -3])
    wanted = generate(rope, prompt(), 30, stop_tokens=stop)
    for given in (torch.tensor(stop), np.int64(stop), torch.tensor([stop]), [torch.tensor(stop)]):
        assert torch.equal(generate(rope, prompt(), 30, stop_tokens=given), wanted)


# ---- the product that decoding consists of --------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("width", [5, 8, 16, 41])
def test_projection_is_the_matrix_product(rows: int, width: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(width, 24), torch.randn(width), torch.randn(rows, 1, 24)
    for given in (bias, None):
        wanted = torch.nn.functional.linear(x.double(), weight.double(), None if given is None else bias.double())
        with torch.inference_mode():
            torch.testing.assert_close(project(x, weight, given), wanted.float())
        torch.testing.assert_close(project(x, weight, given), wanted.float())
