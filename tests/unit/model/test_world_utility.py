"""Labels and loss of the context scores against loops that spell the definition out, and against scipy."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from model.families.world.context.layer import ContextScores
from model.families.world.context.utility import (
    UtilityTargets,
    spearman,
    utility_correlations,
    utility_loss,
    utility_targets,
)

BATCH, HEADS, GROUPS, LENGTH, WIDTH, WINDOW, QUERIES = 2, 4, 2, 23, 8, 5, 9
SCALE = WIDTH**-0.5
DOCUMENTS = torch.tensor([[0] * 8 + [1] * 12 + [2] * 3, [3] * 1 + [4] * 22])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def queries_and_keys() -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(BATCH, HEADS, LENGTH, WIDTH), torch.randn(BATCH, GROUPS, LENGTH, WIDTH)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def targets_of(q: Tensor, k: Tensor, documents: Tensor | None = None, n_query: int = QUERIES) -> UtilityTargets:
    return utility_targets(q, k, SCALE, WINDOW, documents, n_query, generator())


def scores_of(importance: Tensor, urgency: Tensor) -> ContextScores:
    return ContextScores(importance, urgency, torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(6, 1))


def slow_labels(
    q: Tensor, k: Tensor, documents: Tensor | None, sampled: list[int], band: range
) -> list[list[float | None]]:
    """The definition, one number at a time; None where a token has no query in its band."""
    rows: list[list[float | None]] = []
    for b in range(BATCH):
        utility: dict[int, float] = {}
        for j in range(LENGTH):
            terms = []
            for i in sampled:
                visible = [t for t in range(i + 1) if documents is None or documents[b, t] == documents[b, i]]
                if j not in visible or i - j not in band:
                    continue
                share = 0.0
                for h in range(HEADS):
                    key = k[b, h // (HEADS // GROUPS)].double()
                    weights = {t: math.exp(SCALE * float(q[b, h, i].double() @ key[t])) for t in visible}
                    share += weights[j] / sum(weights.values()) / HEADS
                terms.append(share * len(visible))
            if terms:
                utility[j] = sum(terms) / len(terms)
        ranked = sorted(utility, key=lambda j: utility[j])
        rows.append([(ranked.index(j) + 0.5) / len(ranked) if j in utility else None for j in range(LENGTH)])
    return rows


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["one-document", "packed"])
@pytest.mark.parametrize("n_query", [QUERIES, 100], ids=["some-queries", "all-queries"])
def test_labels_equal_the_spelled_out_definition(documents: Tensor | None, n_query: int) -> None:
    q, k = queries_and_keys()
    sampled = torch.randperm(LENGTH, generator=generator())[:n_query].tolist()
    targets = targets_of(q, k, documents, n_query)
    for labels, valid, band in [
        (targets.importance_BT, targets.importance_valid_BT, range(WINDOW + 1, LENGTH)),
        (targets.urgency_BT, targets.urgency_valid_BT, range(1, WINDOW + 1)),
    ]:
        expected = slow_labels(q, k, documents, sampled, band)
        assert valid.tolist() == [[label is not None for label in row] for row in expected]
        found = [[label if ok else None for label, ok in zip(*pair, strict=True)] for pair in
                 zip(labels.tolist(), valid.tolist(), strict=True)]  # fmt: skip
        assert found == [pytest.approx(row) for row in expected]


def test_labels_lie_inside_zero_and_one_with_mean_one_half() -> None:
    targets = targets_of(*queries_and_keys(), DOCUMENTS)
    for labels, valid in [targets[0::2], targets[1::2]]:
        assert labels.min() > 0
        assert labels.max() < 1
        for row in range(BATCH):
            assert labels[row][valid[row]].mean() == pytest.approx(0.5)


def test_tokens_without_a_query_in_their_band_are_invalid() -> None:
    targets = targets_of(*queries_and_keys(), n_query=LENGTH)
    assert targets.urgency_valid_BT[0].tolist() == [True] * (LENGTH - 1) + [False]
    assert targets.importance_valid_BT[0].tolist() == [True] * (LENGTH - WINDOW - 1) + [False] * (WINDOW + 1)


def test_labels_of_a_document_ignore_the_others() -> None:
    """Within a row the order of a document's labels is that of the document alone, whatever stands before it."""
    q, k = queries_and_keys()
    first = targets_of(q, k, DOCUMENTS, LENGTH)
    q[0, :, :8], k[0, :, :8] = torch.randn(HEADS, 8, WIDTH), torch.randn(GROUPS, 8, WIDTH)
    second = targets_of(q, k, DOCUMENTS, LENGTH)
    alone = targets_of(q[:, :, 8:20], k[:, :, 8:20], None, LENGTH)
    for labels, count in [(0, 12 - WINDOW - 1), (1, 12 - 1)]:  # tokens with a query in the band
        assert torch.equal(first[labels][1], second[labels][1])
        before, after = first[labels][0, 8 : 8 + count].argsort(), second[labels][0, 8 : 8 + count].argsort()
        assert torch.equal(before, after)
        assert torch.equal(before, alone[labels][0, :count].argsort())
    assert not torch.equal(first.urgency_BT[0, :7].argsort(), second.urgency_BT[0, :7].argsort())


def test_equal_attention_is_ranked_by_place() -> None:
    zeros = torch.zeros(1, HEADS, LENGTH, WIDTH)
    targets = targets_of(zeros, zeros[:, :GROUPS], n_query=LENGTH)
    count = LENGTH - 1
    expected = (torch.arange(count) + 0.5) / count
    # Uniform attention times visible keys is 1 for every pair, up to rounding that a length of powers of 2 avoids.
    torch.testing.assert_close(targets.urgency_BT[0, :count].sort().values, expected)
    short = torch.zeros(1, 1, 2, WIDTH)
    assert utility_targets(short, short, SCALE, 1).urgency_BT.tolist() == [[0.5, 0.5]]


def test_labels_are_the_same_twice_and_carry_no_gradient() -> None:
    q, k = queries_and_keys()
    first, second = targets_of(q.requires_grad_(), k.requires_grad_()), targets_of(q, k)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not any(tensor.requires_grad for tensor in first)


def test_token_that_is_looked_at_from_afar_has_the_highest_label() -> None:
    q, k = torch.zeros(1, HEADS, LENGTH, WIDTH), torch.zeros(1, GROUPS, LENGTH, WIDTH)
    k[:, :, 3, 0] = 10
    q[:, :, : 3 + WINDOW + 1, 0] = -10  # queries nearby look away
    q[:, :, 3 + WINDOW + 1 :, 0] = 1  # those beyond the window look at it
    targets = targets_of(q, k, n_query=LENGTH)
    assert targets.importance_BT[0].argmax() == 3
    assert targets.urgency_BT[0].argmin() == 3


def test_loss_is_the_mean_over_rows_of_the_mean_cross_entropy_of_valid_tokens() -> None:
    targets = targets_of(*queries_and_keys(), DOCUMENTS)
    scores = scores_of(torch.rand(BATCH, LENGTH), torch.rand(BATCH, LENGTH))
    expected = 0.0
    for score, label, valid in [(scores[0], *targets[0::2]), (scores[1], *targets[1::2])]:
        for row in zip(score.tolist(), label.tolist(), valid.tolist(), strict=True):
            terms = [-y * math.log(p) - (1 - y) * math.log(1 - p) for p, y, ok in zip(*row, strict=True) if ok]
            expected += sum(terms) / len(terms) / len(score)
    assert utility_loss(scores, targets).item() == pytest.approx(expected, rel=1e-5)


def test_loss_ignores_invalid_tokens_and_works_under_autocast() -> None:
    targets = targets_of(*queries_and_keys())
    importance, urgency = torch.rand(BATCH, LENGTH), torch.rand(BATCH, LENGTH)
    loss = utility_loss(scores_of(importance, urgency), targets)
    importance = importance.masked_fill(~targets.importance_valid_BT, 0.999)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss, utility_loss(scores_of(importance, urgency), targets))


def test_loss_without_valid_tokens_is_zero_with_a_graph() -> None:
    q, k = queries_and_keys()
    targets = targets_of(q[:, :, :1], k[:, :, :1])
    score = torch.full((BATCH, 1), 0.3, requires_grad=True)
    loss = utility_loss(scores_of(score, score), targets)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(score.grad, torch.zeros_like(score))


def test_loss_of_saturated_scores_is_finite() -> None:
    targets = targets_of(*queries_and_keys())
    score = torch.ones(BATCH, LENGTH, requires_grad=True)
    utility_loss(scores_of(score, 1 - score), targets).backward()
    assert score.grad.isfinite().all()


def test_scores_that_follow_the_loss_come_to_agree_with_the_labels() -> None:
    targets = targets_of(*queries_and_keys(), n_query=LENGTH)
    logits = torch.zeros(2, BATCH, LENGTH, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        utility_loss(scores_of(*logits.sigmoid()), targets).backward()
        optimizer.step()
    importance, urgency = utility_correlations(scores_of(*logits.sigmoid()), targets)
    assert importance > 0.99
    assert urgency > 0.99


def test_spearman_equals_scipy_with_ties_and_masks() -> None:
    score, label = torch.randint(6, (3, 40)).float(), torch.randint(9, (3, 40)).float()
    valid = torch.rand(3, 40) > 0.3
    expected = [
        spearmanr(score[row][valid[row]].numpy(), label[row][valid[row]].numpy()).statistic for row in range(3)
    ]
    assert spearman(score, label, valid) == pytest.approx(sum(expected) / 3, abs=1e-12)


def test_spearman_leaves_out_rows_without_an_order() -> None:
    score = torch.tensor([[1.0, 2, 3], [5, 5, 5], [1, 2, 3]])
    label = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    valid = torch.tensor([[True] * 3, [True] * 3, [True, False, False]])
    assert spearman(score, label, valid) == pytest.approx(1.0)
    assert math.isnan(spearman(score[1:], label[1:], valid[1:]))
