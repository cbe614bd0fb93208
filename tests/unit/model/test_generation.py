"""Generation: greedy against transformers, sampling against the distribution it must draw from."""

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.export import llama_config, to_llama
from model.generation import choose_token, generate
from model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=61, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_seq_len=32)


@pytest.fixture
def model() -> Transformer:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    model = Transformer(CONFIG)
    with torch.no_grad():  # clear preferences, so that no two logits are equal in all bits that count
        model.embedding.weight.mul_(20)
    return model


def prompt(batch: int = 2, length: int = 5) -> Tensor:
    return torch.randint(1, CONFIG.vocab_size, (batch, length), generator=torch.Generator().manual_seed(batch))


def test_greedy_text_equals_transformers(model: Transformer) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaForCausalLM(LlamaConfig(**llama_config(CONFIG, eot_id=0))).eval()
    llama.load_state_dict(to_llama(model.state_dict()), strict=False)
    ids = prompt()
    wanted = llama.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    found = generate(model, ids, 20, temperature=0)
    assert torch.equal(found, wanted)
    assert torch.equal(found[:, :5], ids)


def test_sample_depends_on_the_seed_and_not_on_the_global_state(model: Transformer) -> None:
    torch.manual_seed(1)
    first = generate(model, prompt(), 16, temperature=1.5, seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = generate(model, prompt(), 16, temperature=1.5, seed=3)
    other = generate(model, prompt(), 16, temperature=1.5, seed=4)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_candidate_is_greedy(model: Transformer) -> None:
    greedy = generate(model, prompt(), 10, temperature=0)
    assert torch.equal(generate(model, prompt(), 10, top_k=1), greedy)
    assert torch.equal(generate(model, prompt(), 10, top_p=1e-6), greedy)


def test_text_longer_than_the_window_is_continued_from_its_end(model: Transformer) -> None:
    long = prompt(1, 40)
    found = generate(model, long, 3, temperature=0)
    assert found.shape == (1, 43)
    assert torch.equal(found[:, 8:], generate(model, long[:, 8:], 3, temperature=0))


def test_stopped_row_is_filled_and_all_stopped_ends_early(model: Transformer) -> None:
    free = generate(model, prompt(1), 12, temperature=0)[0, 5:].tolist()
    stop = free[4]
    end = free.index(stop) + 1
    assert generate(model, prompt(1), 12, temperature=0, stop_token=stop)[0, 5:].tolist() == free[:end]

    pair = torch.cat((prompt(1), prompt(1).flip(1)))
    both = generate(model, pair, 12, temperature=0)[:, 5:]
    stopped = generate(model, pair, 12, temperature=0, stop_token=stop)[:, 5:]
    for row, unbroken in zip(stopped.tolist(), both.tolist(), strict=True):
        kept = unbroken.index(stop) + 1 if stop in unbroken else len(row)
        assert row[:kept] == unbroken[: len(row)][:kept]
        assert set(row[kept:]) <= {stop}


def test_padding_of_the_vocabulary_is_never_chosen(model: Transformer) -> None:
    with torch.no_grad():
        model.embedding.weight[50:] = 3 * model.embedding.weight[1]
    ids = generate(model, torch.ones(8, 1, dtype=torch.long), 20, temperature=2.0, used_vocab=50)
    assert int(ids.max()) < 50


def test_no_new_tokens_returns_the_prompt(model: Transformer) -> None:
    assert torch.equal(generate(model, prompt(), 0), prompt())


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, [0, 1, 2, 3]),
        ({"temperature": 0.5, "top_k": 0, "top_p": 1.0}, [0, 1, 2, 3]),
        ({"temperature": 1.0, "top_k": 2, "top_p": 1.0}, [1, 3]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 0.7}, [1, 3]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 0.75}, [0, 1, 3]),
    ],
)
def test_drawn_tokens_follow_the_renormalized_distribution(settings: dict[str, float], kept: list[int]) -> None:
    probability = torch.tensor([0.2, 0.4, 0.1, 0.3])
    draws = 20_000
    logits = probability.log().expand(draws, -1)
    drawn = choose_token(logits, generator=torch.Generator().manual_seed(0), **settings)  # type: ignore[arg-type]
    wanted = torch.zeros(4)
    wanted[kept] = probability[kept] ** (1 / settings["temperature"])
    wanted /= wanted.sum()
    frequency = drawn.bincount(minlength=4) / draws
    # Five standard deviations of a frequency.
    assert bool((frequency - wanted).abs().le(5 * (wanted * (1 - wanted) / draws).sqrt()).all())


@pytest.mark.parametrize(
    "settings", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": -1}]
)
def test_impossible_settings_are_refused(model: Transformer, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        generate(model, prompt(), **{"max_new_tokens": 3, **settings})  # type: ignore[arg-type]


def test_empty_prompt_is_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="end-of-text"):
        generate(model, torch.zeros(1, 0, dtype=torch.long), 3)
