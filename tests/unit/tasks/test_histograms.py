"""Histograms: every value is in a bar, every bound in the picture, whatever the numbers are."""

import io
import warnings

import matplotlib.image
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tasks.reports import histograms as drawn
from tasks.reports.histograms import MOST_COLUMNS, Panel, histograms

numbers = st.floats(0, 1) | st.floats(-1e6, 1e6) | st.integers(0, 10**9)


@pytest.mark.parametrize("count", [0, 1, 3, MOST_COLUMNS, MOST_COLUMNS + 1, 30])
def test_picture_grows_with_the_panels(count: int) -> None:
    picture = matplotlib.image.imread(
        io.BytesIO(histograms([Panel("a", [1.0, 2.0], (1.5,))] * count, title="All"))
    )
    rows, columns = max(1, -(-count // MOST_COLUMNS)), min(MOST_COLUMNS, max(1, count))

    assert picture.shape[:2] == (round(220 * rows + 30), 340 * columns)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, max_size=30), st.lists(numbers, max_size=3), st.sampled_from([None, True, False]))
@example([0.0], [0.0], True)
@example([5e-324, 1e300], [], None)
def test_any_numbers_are_drawn_with_all_values_and_bounds(
    values: list[float], bounds: list[float], is_least: bool | None
) -> None:
    axes = Figure().add_subplot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn._draw(axes, Panel("any", values, bounds, is_least))
        histograms([Panel("any", values, bounds, is_least)])

    low, high = axes.get_xlim()
    assert all(low <= number <= high for number in (*values, *bounds))
    if values or bounds:
        heights, _, _ = axes.patches[0].get_data()  # type: ignore[attr-defined]
        assert np.rint(np.where(heights < 1, 0, heights)).sum() == len(values)
    assert [line.get_xdata()[0] for line in axes.lines] == bounds  # type: ignore[index]


def test_long_tail_is_drawn_on_a_logarithmic_axis_and_shares_are_not() -> None:
    words, share = Figure().add_subplot(), Figure().add_subplot()
    drawn._draw(words, Panel("words", [0, 10, 100, 1000, 50_000], (50,), True))
    drawn._draw(share, Panel("share", [0.0, 0.001, 0.001, 0.9], (0.3,), False))

    assert (words.get_xscale(), share.get_xscale()) == ("symlog", "linear")
