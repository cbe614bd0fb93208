"""Which keys stay, against a spelled-out choice, and what must hold for any scores."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.families.world.context.block_cache import retention
from model.layers.eviction import check_budget, kept_keys


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rows_of(batch: int, keys: int) -> Tensor:
    return torch.arange(keys).expand(batch, -1)


def slow_choice(
    worth: list[float], rows: list[int], visible: list[bool], budget: int, sinks: int, recent: int
) -> list[int]:
    """Sort by what the rules say, one after the other; earlier keys win ties, and among invisible ones."""
    seen = sorted((key for key in range(len(rows)) if visible[key]), key=lambda key: rows[key])
    always = set(seen[:sinks]) | set(seen[max(0, len(seen) - recent) :])
    order = sorted(
        range(len(rows)), key=lambda key: (not visible[key], key not in always, -worth[key] * visible[key], key)
    )
    return sorted(order[:budget])


def test_retention_is_the_written_out_formula() -> None:
    found = retention(torch.tensor([0.3, 0.3, 0.3]), torch.tensor(0.8), torch.tensor([0, 64, -5]), 64)
    fresh = 0.3 + 0.7 * 0.8
    torch.testing.assert_close(found, torch.tensor([fresh, 0.3 + 0.7 * 0.8 * math.exp(-1), fresh]))


def test_retention_forgets_urgent_keys_before_important_ones() -> None:
    age = torch.tensor([0, 10, 100, 1000, 100_000])
    urgent, important = (retention(torch.tensor(i), torch.tensor(1 - i), age, 64) for i in (0.1, 0.9))
    assert torch.all(urgent[1:] < urgent[:-1])
    assert urgent[0] > 0.9
    assert torch.all(important >= 0.9)
    assert urgent[-1] == pytest.approx(0.1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_choice_equals_the_spelled_out_one(data: st.DataObject) -> None:
    batch, keys = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24))
    sinks, recent = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 5))
    budget = data.draw(st.integers(sinks + recent + 1, 20))

    def table(values: st.SearchStrategy) -> list:
        return data.draw(st.lists(st.lists(values, min_size=keys, max_size=keys), min_size=batch, max_size=batch))

    worth = table(st.sampled_from([0.0, 0.25, 0.5, 1.0]))  # ties are frequent
    rows = [sorted(row) for row in data.draw(st.lists(
        st.lists(st.integers(0, 99), min_size=keys, max_size=keys, unique=True), min_size=batch, max_size=batch
    ))]  # fmt: skip
    visible = table(st.booleans())
    index = kept_keys(
        torch.tensor(worth), torch.tensor(rows), torch.tensor(visible), budget, sinks=sinks, recent=recent
    )
    expected = [
        slow_choice(*row, budget, sinks, recent) if keys > budget else list(range(keys))
        for row in zip(worth, rows, visible, strict=True)
    ]
    assert index.tolist() == expected


def test_without_scores_sinks_and_a_window_stay() -> None:
    index = kept_keys(None, rows_of(2, 200), None, 100)
    assert index.tolist() == [[*range(4), *range(104, 200)]] * 2


def test_scores_fill_the_budget_between_sinks_and_recent_keys() -> None:
    worth = torch.zeros(2, 200)
    worth[0, 50:53], worth[1, 77] = 0.9, 0.9
    index = kept_keys(worth, rows_of(2, 200), None, 71)
    assert index[0].tolist() == [*range(4), 50, 51, 52, *range(136, 200)]
    assert index[1].tolist() == [*range(6), 77, *range(136, 200)]  # of equal keys the first


def test_padding_goes_first_and_sinks_are_the_first_visible_keys() -> None:
    visible = torch.ones(2, 200, dtype=torch.bool)
    visible[0, :90] = False
    worth = torch.linspace(1, 0, 200).expand(2, -1)
    index = kept_keys(worth, rows_of(2, 200), visible, 100)
    assert index[0].tolist() == [*range(90, 126), *range(136, 200)]
    assert index[1].tolist() == [*range(36), *range(136, 200)]


def test_row_with_few_visible_keys_keeps_them_all_and_the_size_of_the_others() -> None:
    visible = torch.ones(2, 200, dtype=torch.bool)
    visible[0, :150] = False
    for worth in (None, torch.rand(2, 200)):
        index = kept_keys(worth, rows_of(2, 200), visible, 100)
        assert index.shape == (2, 100)
        assert set(range(150, 200)) <= set(index[0].tolist())


@pytest.mark.parametrize("keys", [0, 1, 69, 100])
def test_budget_that_is_not_reached_keeps_all(keys: int) -> None:
    index = kept_keys(torch.rand(3, keys), rows_of(3, keys), None, 100)
    assert index.tolist() == [list(range(keys))] * 3


@pytest.mark.parametrize("budget", [-1, 0, 68])
def test_budget_without_room_for_scores_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match=rf"more than 68 keys.*found {budget}; choose at least 69"):
        kept_keys(None, rows_of(1, 10), None, budget)
    check_budget(69)


def test_keys_dropped_one_by_one_stay_bounded_and_in_order() -> None:
    """As generation does it: a new key, then back to the budget; sinks survive all steps."""
    torch.manual_seed(0)
    rows, worth = rows_of(2, 80), torch.rand(2, 80)
    for step in range(80, 130):
        rows = torch.cat((rows, torch.full((2, 1), step)), dim=1)
        worth = torch.cat((worth, torch.rand(2, 1)), dim=1)
        index = kept_keys(worth, rows, None, 80)
        rows, worth = rows.gather(1, index), worth.gather(1, index)
        assert rows.shape == (2, 80)
        assert torch.all(rows[:, 1:] > rows[:, :-1])
    assert torch.equal(rows[:, :4], rows_of(2, 4))
    assert torch.equal(rows[:, -64:], torch.arange(66, 130).expand(2, -1))
