"""Histograms, many small ones in one picture, with the bounds that part their values."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

MOST_COLUMNS = 4
PANEL, HEAD = (3.4, 2.2), 0.3
"""Inches of a panel, width and height, and of what is above all of them."""
BINS = 40
LEAST = 0.7
"""Where the logarithmic axis of counts begins, so that one sees a bin with one value in it."""
WIDE = 20.0
"""With a largest value of so many times the median or a bound, values are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Panel:
    """One distribution."""

    title: str
    values: Sequence[float]
    bounds: Sequence[float] = ()
    """Each is a line with its figure."""
    is_least: bool | None = None
    """Whether bounds are the least values allowed, or the largest: the side beyond is shaded. None: neither."""
    weights: Sequence[int] | None = None
    """How often each value was found; once by default."""


def histograms(panels: Sequence[Panel], *, title: str = "", of: str = "documents") -> bytes:
    """Return a PNG with a panel for each distribution, in the order given; `of` says what is counted.

    Counts are logarithmic: what bounds part off is rare.
    """
    columns = min(MOST_COLUMNS, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    width, height = PANEL[0] * columns, PANEL[1] * rows + HEAD
    figure = Figure(figsize=(width, height), dpi=100)
    # A layout found by matplotlib takes twice as long as the drawing.
    figure.subplots_adjust(
        left=0.55 / width, right=1 - 0.15 / width, bottom=0.3 / height, top=1 - (HEAD + 0.2) / height, hspace=0.35
    )
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw(axes, panel)
        if place % columns == 0:
            axes.set_ylabel(of, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, y=1 - 0.15 / height, va="center")
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    return data.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    values = np.asarray(panel.values, np.float64)
    shown = np.concatenate([values, np.asarray(panel.bounds, np.float64)])
    is_wide = _is_wide(shown, panel.bounds)
    if is_wide:
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 10)
    if len(shown):
        # Values that are counted already stand in steps, which bins of another width would show as waves.
        bins = BINS if panel.weights is None else max(1, len(values) // 2)
        counts, edges = np.histogram(values, _edges(shown, is_wide, bins), weights=panel.weights)
        axes.stairs(np.maximum(counts, LEAST), edges, baseline=LEAST, fill=True, color="tab:blue", alpha=0.7)
        axes.set_xlim(*_with_room(axes, edges[0], edges[-1]))
        axes.set_ylim(LEAST, max(10, 3 * counts.max()))
        _draw_bounds(axes, panel)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_figure)  # powers of ten as formulas would take most of the time
    axes.set_title(panel.title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _figure(value: float, _: float = 0) -> str:
    return f"{value:,.6g}"


def _is_wide(shown: npt.NDArray[np.float64], bounds: Sequence[float]) -> bool:
    """Return whether what matters would lie in the first bins of a linear axis; shares of 1 never do."""
    if not len(shown) or shown.min() < 0:
        return False
    return bool(shown.max() > WIDE * max(1.0, min([float(np.median(shown)), *bounds])))


def _edges(shown: npt.NDArray[np.float64], is_wide: bool, bins: int) -> npt.NDArray[np.float64]:
    low, high = shown.min(), shown.max()
    if low == high:
        low, high = low - 0.5, high + 0.5
    if is_wide:
        edges = np.expm1(np.linspace(np.log1p(low), np.log1p(high), bins + 1))
        edges[0], edges[-1] = low, high  # which rounding may miss
        return np.asarray(edges)
    return np.linspace(low, high, bins + 1)


def _with_room(axes: Axes, low: float, high: float) -> tuple[float, float]:
    """Return limits a little beyond these, so that a bound at the edge has two sides."""
    scale = axes.xaxis.get_transform()
    begin, end = scale.transform(np.array([low, high]))
    room = 0.03 * (end - begin)
    wider = scale.inverted().transform(np.array([begin - room, end + room]))
    return float(wider[0]), float(wider[1])


def _draw_bounds(axes: Axes, panel: Panel) -> None:
    low, high = axes.get_xlim()
    for place, bound in enumerate(panel.bounds):
        axes.axvline(bound, color="tab:red", linewidth=1)
        if panel.is_least is not None:
            beyond = (low, bound) if panel.is_least else (bound, high)
            axes.axvspan(*beyond, color="tab:red", alpha=0.08, linewidth=0)
        # One below the other, on the side where there is room.
        is_right = axes.transData.transform((bound, 1))[0] > axes.transAxes.transform((0.6, 0))[0]
        axes.annotate(
            _figure(bound),
            (bound, 0.95 - 0.13 * (place % 6)),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if is_right else 3, 0),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="top",
            fontsize=7,
            color="tab:red",
            bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.7, "linewidth": 0},
        )
    axes.set_xlim(low, high)
