import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.loader.shuffle import ROUNDS, SMALL, batch_indices, epoch_key, permuted

KEYS = st.integers(0, 2**64 - 1)


@given(n=st.integers(1, 3000), key=KEYS)
def test_permuted_all_positions_is_a_bijection(n: int, key: int) -> None:
    assert sorted(permuted(np.arange(n), n, key).tolist()) == list(range(n))


@given(n=st.integers(1, 600) | st.integers(1, 2**62), key=KEYS, data=st.data())
def test_permuted_some_positions_agree_with_one_at_a_time_in_plain_python(
    n: int, key: int, data: st.DataObject
) -> None:
    positions = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=10))
    expected = [slow_permuted(position, n, key) for position in positions]
    assert permuted(np.array(positions, np.int64), n, key).tolist() == expected
    assert all(0 <= value < n for value in expected)


def slow_permuted(position: int, n: int, key: int) -> int:
    """The same network on Python integers, one position at a time."""
    if n <= SMALL:
        start = round_key(key, 0)
        return sorted(range(n), key=lambda item: slow_mixed((item + start) % 2**64))[position]
    bits = 1
    while 4**bits < n:
        bits += 1
    value = position
    while True:
        left, right = divmod(value, 2**bits)
        for index in range(ROUNDS):
            z = slow_mixed((right + round_key(key, index)) % 2**64)
            left, right = right, left ^ z % 2**bits
        value = left * 2**bits + right
        if value < n:
            return value


def round_key(key: int, index: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{key}/{index}".encode(), digest_size=8).digest(), "little")


def slow_mixed(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@given(n=st.integers(1, 50), batch=st.integers(1, 70), seed=st.integers(0, 2**40), epochs=st.integers(1, 4))
@settings(deadline=None)
def test_batch_indices_over_epochs_cover_every_sequence_exactly_once_each(
    n: int, batch: int, seed: int, epochs: int
) -> None:
    steps = -(-epochs * n // batch)
    order = np.concatenate([batch_indices(step, batch, n, seed) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(order[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_batch_indices_another_batch_size_reads_the_same_order() -> None:
    small = np.concatenate([batch_indices(step, 6, 1000, seed=3) for step in range(40)])
    large = np.concatenate([batch_indices(step, 48, 1000, seed=3) for step in range(5)])
    assert small.tolist() == large.tolist()


def test_batch_indices_epochs_and_seeds_have_different_orders() -> None:
    orders = {tuple(batch_indices(step, 100, 100, seed).tolist()) for step in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_batch_indices_are_the_same_in_every_release() -> None:
    # A resumed run must read what the interrupted one would have read; a change here breaks checkpoints.
    assert batch_indices(0, 8, 1_000_000_007, seed=0).tolist() == FIRST_BATCH
    assert batch_indices(10**9, 4, 10, seed=7).tolist() == LATE_BATCH


FIRST_BATCH = [701308048, 406939407, 447426313, 579117775, 987069084, 723676480, 808512343, 863019594]
LATE_BATCH = [6, 5, 4, 9]


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_permuted_few_items_every_order_is_about_equally_likely(n: int) -> None:
    keys = 6000
    places = Counter(
        (i, v) for k in range(keys) for i, v in enumerate(permuted(np.arange(n), n, epoch_key(0, k)).tolist())
    )
    expected = keys / n
    chi_square = sum((places[i, v] - expected) ** 2 / expected for i in range(n) for v in range(n))
    # Degrees of freedom (n-1)^2; 4 times that, plus 20 for n=2, is far outside chance for a fixed set of keys.
    assert chi_square < 4 * (n - 1) ** 2 + 20


def test_permuted_large_domain_breaks_up_neighbours() -> None:
    n = 100_000
    order = permuted(np.arange(n), n, key=5)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02  # 6 standard deviations
    assert np.count_nonzero(np.abs(np.diff(order)) == 1) < 20  # 2 are expected


@pytest.mark.parametrize("position", [-1, 10])
def test_permuted_position_outside_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        permuted(np.array([position]), 10, key=1)


@pytest.mark.parametrize(("step", "batch", "n"), [(-1, 4, 10), (0, 0, 10), (0, 4, 0)])
def test_batch_indices_impossible_arguments_are_refused(step: int, batch: int, n: int) -> None:
    with pytest.raises(ValueError, match="a batch needs"):
        batch_indices(step, batch, n, seed=0)
