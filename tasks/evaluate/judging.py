"""Whether held-out text is enough to judge a model by, and what the model has to beat.

The rule: a row is too small to judge below 30 documents or 100,000 bytes, or where the 95 % interval of the
model's bits per byte, by a bootstrap over documents, reaches the best baseline. A model that is not better than
the best baseline is told so as well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

NAMES = {
    "unigram": "token frequencies",
    "zstd_19_primed": "zstd after training text",
    "xz_9_primed": "xz after training text",
}
"""How baselines are called in a warning, where their names say too little."""

MIN_DOCUMENTS = 30
MIN_BYTES = 100_000
RESAMPLES = 1000
DIGITS = 4


def interval(bits: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Return the 95 % interval of bits per byte of documents with these costs and sizes in bytes.

    Documents are drawn with replacement; the draws follow from their number alone. Memory: one draw.
    """
    costs, lengths = np.asarray(bits), np.asarray(sizes)
    draw = np.random.default_rng(0)
    rates = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = draw.integers(0, len(costs), len(costs))
        rates[number] = costs[drawn].sum() / lengths[drawn].sum()
    low, high = np.quantile(rates, [0.025, 0.975])
    return [round(float(low), DIGITS), round(float(high), DIGITS)]


def best_baseline(rates: dict[str, float]) -> str:
    """Return the name of the baseline that costs the fewest bits, among those that could be used in advance."""
    return min((name for name in rates if name not in ("model", "unigram_self")), key=lambda name: rates[name])


def warnings(row: dict[str, Any], low: float, high: float) -> list[str]:
    """Return what must be said before anybody trusts the numbers of a row; short sentences."""
    found = []
    if row["documents"] < MIN_DOCUMENTS or row["text_bytes"] < MIN_BYTES:
        found.append(f"too small to judge: {row['documents']:,} documents, {row['text_bytes']:,} bytes held out")
        found.append(f"give at least {MIN_DOCUMENTS} documents and {MIN_BYTES:,} bytes to the held-out split")
    rates = row["bits_per_byte"]
    name = best_baseline(rates)
    title = NAMES.get(name, name.replace("_", " -"))
    if low <= rates[name] <= high:
        found.append(
            f"cannot be told from {title} ({rates[name]:.2f}): the model's interval is {low:.2f}-{high:.2f}"
        )
    elif rates["model"] >= rates[name]:
        found.append(f"the model ({rates['model']:.2f}) is worse than {title} ({rates[name]:.2f})")
    return found
