from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.formats.probes import (
    MIN_PROBED_TOKENS,
    NO_LABEL,
    Probes,
    add_probes,
    document_numbers,
    lead_with_eot,
    loss_mask,
)

EOT, TONE, FIELD, OTHER = 0, 1, 2, 3
PROBES = Probes(TONE, FIELD)

DOCUMENTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.booleans(), st.booleans()).filter(
        lambda kind: kind[1] > 0 or (kind[2] and not kind[3])
    ),
    max_size=6,
)
"""Documents as (led by EOT, tokens of text, ended by EOT, with probes); a piece that is cut lacks some of them."""


def packed(documents: list[tuple[bool, int, bool, bool]], padding: int) -> tuple[NDArray[Any], list[int]]:
    """Return a row of documents and padding, and the number of each token's document."""
    row: list[int] = []
    numbers: list[int] = []
    number = -1
    for led, size, ended, probed in [*documents, *[(True, 0, False, False)] * padding]:
        tokens = [EOT] * led + [OTHER + place for place in range(size)] + [EOT] * ended + [TONE, FIELD] * probed
        number += 1
        own = [number] * len(tokens)
        if ended and not probed and (led or size):  # as an input such an EOT begins what comes next
            number += 1
            own[-1] = number
        row += tokens
        numbers += own
    first = numbers[0] if numbers else 0
    return np.array(row, np.uint16), [number - first for number in numbers]


def slow_mask(row: list[int]) -> list[bool]:
    """The rule word for word."""
    mask = []
    for token, target in pairwise(row):
        is_probe = token in (TONE, FIELD) or target in (TONE, FIELD)
        mask.append(not is_probe and (token, target) != (EOT, EOT))
    return mask


@pytest.mark.parametrize("pad", [EOT, 50], ids=["end of text", "a token of its own"])
def test_probes_worked_case(pad: int) -> None:
    t, f, none = TONE, FIELD, NO_LABEL
    ids = np.array([5, 6, 7, EOT, t, f, 8, 9, EOT, t, f, pad])
    documents = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2]
    labels = [6, 7, EOT, none, none, none, 9, EOT, none, none, none]
    assert document_numbers(ids, EOT, PROBES).tolist() == documents
    assert np.where(loss_mask(ids, EOT, PROBES), ids[1:], none).tolist() == labels


@given(documents=DOCUMENTS, padding=st.integers(0, 3))
def test_document_numbers_are_those_that_the_row_was_made_of(
    documents: list[tuple[bool, int, bool, bool]], padding: int
) -> None:
    # As packing does, so that what follows an end without probes can be told from it: an EOT leads it.
    documents = [(led or number > 0, *rest) for number, (led, *rest) in enumerate(documents)]
    row, numbers = packed(documents, padding)
    found = document_numbers(row, EOT, PROBES)
    assert np.array_equal(np.diff(found) != 0, np.diff(numbers) != 0)
    assert loss_mask(row, EOT, PROBES).tolist() == slow_mask(row.tolist())


@given(documents=DOCUMENTS, padding=st.integers(0, 3))
def test_document_numbers_without_probes_change_at_each_end_of_text(
    documents: list[tuple[bool, int, bool, bool]], padding: int
) -> None:
    row, _ = packed([(True, size, True, False) for _, size, _, _ in documents], padding)
    assert document_numbers(row, EOT).tolist() == [
        sum(token == EOT for token in row[1 : place + 1].tolist()) for place in range(len(row))
    ]
    assert loss_mask(row, EOT).tolist() == slow_mask(row.tolist())


@given(lengths=st.lists(st.integers(1, 5), max_size=6))
def test_lead_with_eot_puts_one_before_each_document(lengths: list[int]) -> None:
    documents = [[OTHER + number] * (length - 1) + [EOT] for number, length in enumerate(lengths)]
    tokens = np.array([token for document in documents for token in document], np.uint16)
    found, led = lead_with_eot(np.array(lengths, np.int64), tokens, EOT)
    assert led.dtype == np.uint16
    assert found.tolist() == [length + 1 for length in lengths]
    assert led.tolist() == [token for document in documents for token in [EOT, *document]]


@given(rows=st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=4, max_size=4))
def test_probes_of_a_batch_are_those_of_its_rows(rows: list[list[int]]) -> None:
    batch = np.array(rows, np.uint16)
    numbers, mask = document_numbers(batch, EOT, PROBES), loss_mask(batch, EOT, PROBES)
    assert numbers.tolist() == [document_numbers(row, EOT, PROBES).tolist() for row in batch]
    assert mask.tolist() == [loss_mask(row, EOT, PROBES).tolist() for row in batch]


@given(lengths=st.lists(st.integers(MIN_PROBED_TOKENS - 3, MIN_PROBED_TOKENS + 3), max_size=12))
def test_add_probes_puts_a_labelled_pair_behind_every_long_piece(lengths: list[int]) -> None:
    random = np.random.default_rng(0)
    pieces = [random.integers(OTHER, 99, length) for length in lengths]
    labels = random.integers(0, 6, (len(lengths), 2)).astype(np.int8)
    tokens = np.concatenate([*pieces, np.array([], np.int64)]).astype(np.uint16)
    found, new_tokens, token_labels = add_probes(np.array(lengths, np.int64), tokens, labels, PROBES)
    expected = [
        ([*piece, TONE, FIELD], [NO_LABEL] * piece.size + pair)
        if piece.size >= 64
        else (piece, [NO_LABEL] * piece.size)
        for piece, pair in zip(pieces, labels.tolist(), strict=True)
    ]
    assert new_tokens.dtype == np.uint16
    assert found.tolist() == [len(piece) for piece, _ in expected]
    assert new_tokens.tolist() == [token for piece, _ in expected for token in piece]
    assert token_labels.tolist() == [label for _, labels in expected for label in labels]
