"""Whether a held-out text is enough to judge a model by."""

import math
import random

import pytest

from tasks.evaluate.judging import interval, warnings


def row(model: float, best: float, documents: int = 500, text_bytes: int = 500_000) -> dict[str, object]:
    rates = {"model": model, "unigram": best, "zstd_19": best + 1, "unigram_self": 0.1}
    return {"documents": documents, "text_bytes": text_bytes, "bits_per_byte": rates}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (row(2.0, 3.0), []),
        (row(2.0, 3.0, documents=29), ["too small to judge: 29", "give at least 30"]),
        (row(2.0, 3.0, text_bytes=99_999), ["too small to judge: 500", "give at least 30"]),
        (row(2.0, 2.05), ["cannot be told from token frequencies (2.05)"]),
        (row(3.37, 2.69), ["the model (3.37) is worse than token frequencies (2.69)"]),
    ],
)
def test_what_is_said(found: dict[str, object], said: list[str]) -> None:
    model = found["bits_per_byte"]["model"]  # type: ignore[index]
    texts = warnings(found, model - 0.1, model + 0.1)
    assert [text.startswith(begin) for text, begin in zip(texts, said, strict=True)] == [True] * len(said)


def test_interval_is_that_of_the_mean_where_documents_are_equally_long() -> None:
    draw = random.Random(0)
    bits = [draw.gauss(200, 50) for _ in range(400)]
    low, high = interval(bits, [100] * 400)
    mean = sum(bits) / 400 / 100
    error = 1.96 * math.sqrt(sum((one / 100 - mean) ** 2 for one in bits)) / 400
    assert (low, high) == (pytest.approx(mean - error, abs=0.01), pytest.approx(mean + error, abs=0.01))
