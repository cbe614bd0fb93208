"""What a classification head is compared with: the commonest class, and a logistic regression on words.

A head that does no better than the second has learned nothing that the words alone did not tell. The regression
knows of a text only its lowercased words and how often each occurs, hashed, so that no vocabulary is kept. Nothing
is random: the same texts give the same classifier.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

BUCKETS = 1 << 18
"""Words are counted in so many places; of 50,000 different ones about a tenth shares a place with another."""

PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6)
"""Weights of half the squared coefficients beside the mean cross entropy, of which the best is taken."""

CHECKED = 10
"""Every tenth training text chooses the penalty, before the regression is fitted to all."""

MAX_ITERATIONS = 300

_WORD = re.compile(r"\w+")


class Baselines:
    """Both baselines for one head; neither exists without a labelled document to learn from."""

    def __init__(self, texts: Sequence[str], labels: NDArray[np.int64]) -> None:
        self.labels = labels
        self.commonest = commonest_class(labels) if labels.size else None
        """The class that `majority` always names."""
        self._words = BagOfWords(texts, labels) if labels.size else None

    def predict(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return the class of each text by `majority` and by `bag_of_words`."""
        if self.commonest is None or self._words is None:
            return {}
        return {"majority": np.full(len(texts), self.commonest), "bag_of_words": self._words.predict(texts)}


class BagOfWords:
    """Multinomial logistic regression on hashed words, classes not weighted."""

    def __init__(self, texts: Sequence[str], labels: NDArray[np.int64]) -> None:
        words = hashed_words(texts)
        self._used = np.flatnonzero(words.getnnz(axis=0))
        words = words[:, self._used]
        self._classes, numbers = np.unique(labels, return_inverse=True)
        self.penalty = _best_penalty(words, numbers, len(self._classes))
        self._coefficients = fit_softmax(words, numbers, len(self._classes), self.penalty)

    def predict(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the likeliest class of each text, one of those that were seen."""
        logits = _logits(hashed_words(texts)[:, self._used], self._coefficients)
        likeliest: NDArray[np.int64] = np.take(self._classes, logits.argmax(axis=1))
        return likeliest


def commonest_class(labels: NDArray[np.int64]) -> int:
    """Return the most frequent label, the lowest of equals; there must be one."""
    return int(np.bincount(labels).argmax())


def hashed_words(texts: Iterable[str]) -> csr_matrix:
    """Return log(1 + count) of the words of each text, scaled to length 1. Shapes: result (texts, BUCKETS)."""
    columns: list[int] = []
    values: list[NDArray[np.float64]] = [np.zeros(0)]
    ends = [0]
    for text in texts:
        counts = Counter(zlib.crc32(word.encode()) % BUCKETS for word in _WORD.findall(text.lower()))
        weights = np.log1p(np.fromiter(counts.values(), np.float64, len(counts)))
        columns.extend(counts)
        values.append(weights / max(np.linalg.norm(weights), 1e-12))
        ends.append(len(columns))
    return csr_matrix((np.concatenate(values), np.array(columns, np.int64), ends), shape=(len(ends) - 1, BUCKETS))


def fit_softmax(
    features: csr_matrix, labels: NDArray[np.int64], classes: int, penalty: float
) -> NDArray[np.float64]:
    """Return the coefficients with the least mean cross entropy plus penalty / 2 times their squared sum.

    The last row is the bias, which is not penalized.

    Shapes: features (N, F); labels (N,), each below `classes`; result (F + 1, classes).
    """
    wanted = np.eye(classes)[labels]
    shape = (features.shape[1] + 1, classes)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = flat.reshape(shape)
        logits = _logits(features, coefficients)
        log_chances = logits - logsumexp(logits, axis=1, keepdims=True)
        error = (np.exp(log_chances) - wanted) / len(labels)
        slope = np.vstack([features.T @ error + penalty * coefficients[:-1], error.sum(axis=0)])
        cost = -(wanted * log_chances).sum() / len(labels) + penalty / 2 * np.square(coefficients[:-1]).sum()
        return float(cost), slope.ravel()

    options = {"maxiter": MAX_ITERATIONS}
    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    best: NDArray[np.float64] = found.x.reshape(shape)
    return best


def _best_penalty(features: csr_matrix, labels: NDArray[np.int64], classes: int) -> float:
    checked = np.arange(len(labels)) % CHECKED == CHECKED - 1
    if not checked.any():
        return PENALTIES[0]
    losses = {}
    for penalty in PENALTIES:
        logits = _logits(features[checked], fit_softmax(features[~checked], labels[~checked], classes, penalty))
        log_chances = logits - logsumexp(logits, axis=1, keepdims=True)
        losses[penalty] = -log_chances[np.arange(len(logits)), labels[checked]].mean()
    return min(losses, key=lambda penalty: losses[penalty])


def _logits(features: csr_matrix, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = features @ coefficients[:-1] + coefficients[-1]
    return logits
