"""Choosing tokens against a slow version, the warpers of transformers and the distribution that must be drawn."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.generation.sampling import Sampling, candidates, choose, likeliest, penalize


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_logits(batch: int, vocab: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(batch, vocab, generator=torch.Generator().manual_seed(seed))


def probabilities(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    tokens_BN, weights_BN = candidates(logits_BV, sampling)
    spread_BV = torch.zeros(logits_BV.shape, dtype=torch.float64).scatter_add(1, tokens_BN, weights_BN)
    return spread_BV / spread_BV.sum(dim=-1, keepdim=True)


def slow_probabilities(logits: list[float], sampling: Sampling) -> list[float]:
    """One rule after the other, on a list of (score, id)."""
    ranked = sorted(enumerate(logits), key=lambda pair: (-pair[1], pair[0]))
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    largest = ranked[0][1]
    weights = {token: math.exp((logit - largest) / sampling.temperature) for token, logit in ranked}
    total = math.fsum(weights.values())
    kept: dict[int, float] = {}
    for token in weights:
        reached = math.fsum(kept.values()) / total
        assume(abs(reached - sampling.top_p) > 1e-9)  # where rounding decides, either is right
        if kept and reached >= sampling.top_p:
            break
        kept[token] = weights[token]
    total = math.fsum(kept.values())
    return [kept.get(token, 0.0) / total for token in range(len(logits))]


@settings(max_examples=200, deadline=None)
@given(
    # Whole numbers make ties frequent.
    logits=st.lists(st.integers(-6, 6), min_size=1, max_size=12),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.01, 1.0),
)
def test_distribution_is_that_of_the_rules(
    logits: list[int], temperature: float, top_k: int, top_p: float
) -> None:
    sampling = Sampling(True, temperature, top_k, top_p)
    wanted = slow_probabilities([float(logit) for logit in logits], sampling)
    found = probabilities(torch.tensor([logits], dtype=torch.float32), sampling)[0]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 200])
@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.95, 1.0])
def test_distribution_equals_the_warpers_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits, ids = random_logits(5, 101), torch.zeros(5, 1, dtype=torch.long)
    wanted = TemperatureLogitsWarper(temperature)(ids, logits)
    wanted = TopKLogitsWarper(top_k)(ids, wanted) if top_k else wanted
    wanted = TopPLogitsWarper(top_p)(ids, wanted) if top_p < 1 else wanted
    found = probabilities(logits, Sampling(True, temperature, top_k, top_p))
    torch.testing.assert_close(found, wanted.double().softmax(dim=-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_penalty_equals_that_of_transformers(penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = random_logits(4, 50)
    ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(1))
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    seen = torch.zeros(4, 50, dtype=torch.bool).scatter(1, ids, True)
    torch.testing.assert_close(penalize(logits, seen, penalty), wanted)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, [0, 1, 2, 3]),
        ({"temperature": 0.5, "top_k": 0, "top_p": 1.0}, [0, 1, 2, 3]),
        ({"temperature": 1.0, "top_k": 2, "top_p": 1.0}, [1, 3]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 0.69}, [1, 3]),
        ({"temperature": 1.0, "top_k": 0, "top_p": 0.75}, [0, 1, 3]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.7}, [1, 3]),
    ],
)
def test_drawn_tokens_follow_the_renormalized_distribution(settings: dict[str, float], kept: list[int]) -> None:
    probability = torch.tensor([0.2, 0.4, 0.1, 0.3])
    draws = 20_000
    logits = probability.log().expand(draws, -1)
    sampling = Sampling(True, **settings)  # type: ignore[arg-type]
    drawn = choose(logits, sampling, torch.Generator().manual_seed(0))
    wanted = torch.zeros(4)
    wanted[kept] = probability[kept] ** (1 / settings["temperature"])
    wanted /= wanted.sum()
    frequency = drawn.bincount(minlength=4) / draws
    # Five standard deviations of a frequency.
    assert bool((frequency - wanted).abs().le(5 * (wanted * (1 - wanted) / draws).sqrt()).all())


def test_tokens_of_no_probability_are_never_drawn() -> None:
    logits = torch.full((5000, 6), -torch.inf)
    logits[:, [1, 4]] = 0.0
    drawn = choose(logits, Sampling(True), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 4}


def test_greedy_ignores_how_draws_would_be_made() -> None:
    logits = random_logits(7, 40)
    for sampling in (
        Sampling(),
        Sampling(False, 0.0, 3, 0.2),
        Sampling(True, top_k=1),
        Sampling(True, top_p=1e-9),
    ):
        assert torch.equal(choose(logits, sampling, torch.Generator()), logits.argmax(dim=-1))


def test_of_equal_logits_the_lowest_ids_are_kept() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    assert likeliest(logits, 3).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert choose(logits, Sampling(True, top_k=1), torch.Generator()).tolist() == [1, 0]


def test_whole_probability_keeps_every_draw() -> None:
    logits = random_logits(300, 40)
    plain = choose(logits, Sampling(True), torch.Generator().manual_seed(2))
    whole = choose(logits, Sampling(True, top_k=40, top_p=1.0), torch.Generator().manual_seed(2))
    assert torch.equal(plain, whole)


def test_draws_leave_the_global_state() -> None:
    state = torch.random.get_rng_state()
    choose(random_logits(2, 9), Sampling(True), torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"temperature": 0.0, "do_sample": True},
        {"temperature": 1e-320},
        {"temperature": 1e-320, "do_sample": True},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-320},
        {"repetition_penalty": -1.0},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(True), Sampling(True, top_k=1), Sampling(True, top_k=2)]
)
@pytest.mark.parametrize("wrong", [[0.0, math.nan, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3])
def test_logits_that_are_no_numbers_are_refused(sampling: Sampling, wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="must be numbers"):
        choose(torch.tensor([[0.0, 1.0, 2.0], wrong]), sampling, torch.Generator())


def test_coldest_draw_is_the_likeliest_token() -> None:
    logits = random_logits(7, 40)
    assert torch.equal(choose(logits, Sampling(True, 1e-6), torch.Generator()), logits.argmax(dim=-1))
