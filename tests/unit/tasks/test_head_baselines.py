"""The baselines of the heads, against a second implementation and texts whose answer is plain."""

import math
import zlib

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from tasks.evaluate.head_baselines import (
    BUCKETS,
    BagOfWords,
    Baselines,
    commonest_class,
    fit_softmax,
    hashed_words,
)

CATS = ["the cat purrs", "a Cat, a cat!", "my kitten and the cat", "cat (old)"]
DOGS = ["the dog barks", "a dog is a dog", "DOG and puppy", "this dog: good"]


def test_hashed_words_are_counted_without_case_and_scaled_to_length_1() -> None:
    row = hashed_words(["Tree tree, TREE house_2 ёлка"]).toarray()[0]
    counts = {"tree": 3, "house_2": 1, "ёлка": 1}
    length = math.sqrt(sum(math.log1p(count) ** 2 for count in counts.values()))
    assert np.flatnonzero(row).size == len(counts)
    for word, count in counts.items():
        assert row[zlib.crc32(word.encode()) % BUCKETS] == pytest.approx(math.log1p(count) / length)


def test_texts_without_words_and_no_texts_have_no_features() -> None:
    assert hashed_words(["", "?!"]).nnz == 0
    assert hashed_words([]).shape == (0, BUCKETS)


def test_fit_softmax_finds_the_minimum_that_torch_finds() -> None:
    random = np.random.default_rng(0)
    features = random.random((40, 7)) * (random.random((40, 7)) < 0.5)
    labels, penalty = random.integers(0, 3, 40), 1e-2
    found = fit_softmax(csr_matrix(features), labels, 3, penalty)

    x, y = torch.tensor(features), torch.tensor(labels)
    weight = torch.zeros(7, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        descent.zero_grad()
        cost = torch.nn.functional.cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()
        cost.backward()
        return cost

    descent.step(loss)
    chances = torch.softmax(torch.tensor(features @ found[:-1] + found[-1]), dim=-1)
    torch.testing.assert_close(torch.softmax(x @ weight + bias, dim=-1).detach(), chances, atol=1e-3, rtol=0)


def test_bag_of_words_tells_texts_by_their_words() -> None:
    texts, labels = CATS + DOGS, np.array([2] * 4 + [0] * 4)
    told = BagOfWords(texts, labels).predict(["what a dog", "CAT?", "two cats", "cat, cat and dog"])
    assert told[[0, 1, 3]].tolist() == [0, 2, 2]
    assert told[2] in (0, 2)  # no known word: one of the classes that were seen


def test_bag_of_words_is_the_same_when_repeated() -> None:
    texts, labels = (CATS + DOGS) * 5, np.array(([1] * 4 + [0] * 4) * 5)
    one, other = (BagOfWords(texts, labels) for _ in range(2))
    assert one.penalty == other.penalty
    assert (one._coefficients == other._coefficients).all()


def test_rare_class_of_many_documents_is_found() -> None:
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(random.choice(words, 15)) for _ in range(400)]
    labels = (random.random(400) < 0.05).astype(int)
    texts = [f"{text} hereby license" if label else text for text, label in zip(texts, labels, strict=True)]
    told = BagOfWords(texts[100:], labels[100:]).predict(texts[:100])
    assert told.tolist() == labels[:100].tolist()
    assert 0 < labels[:100].sum() < labels[100:].sum() < 20


def test_only_class_that_was_seen_is_told() -> None:
    baselines = Baselines(CATS, np.full(4, 5))
    assert {name: told.tolist() for name, told in baselines.predict(["a dog", ""]).items()} == {
        "majority": [5, 5],
        "bag_of_words": [5, 5],
    }


def test_without_labelled_documents_there_are_no_baselines() -> None:
    baselines = Baselines([], np.array([], np.int64))
    assert baselines.commonest is None
    assert baselines.predict(["a"]) == {}


def test_commonest_class_of_equals_is_the_first() -> None:
    assert commonest_class(np.array([4, 1, 4, 1, 0])) == 1
