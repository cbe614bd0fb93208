"""Which pieces of documents share a row."""

from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def cut_documents(lengths: NDArray[np.int64], longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lengths of the pieces, at most `longest` tokens each, and the number of each one's document.

    Shapes: lengths (documents,), each at least 1; results (pieces,).
    """
    pieces_of = -(-lengths // longest)
    documents = np.repeat(np.arange(lengths.size), pieces_of)
    piece_of = np.arange(documents.size) - np.repeat(np.cumsum(pieces_of) - pieces_of, pieces_of)
    return np.minimum(lengths[documents] - piece_of * longest, longest), documents


def pack_pieces(lengths: NDArray[np.int64], row_tokens: int) -> Iterator[list[tuple[int, int]]]:
    """Yield rows of at most `row_tokens` tokens: the (start, end) of each piece in the concatenated documents.

    Rows come in the order of their first piece and pieces in that of the documents, so that neither a row's
    number nor a place in it says anything about the length of a document.

    Shapes: lengths (pieces,), each from 1 to `row_tokens`.
    """
    ends = np.cumsum(lengths)
    rows: dict[int, list[tuple[int, int]]] = {}
    places = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    for row, (start, end) in zip(best_fit_decreasing(lengths, row_tokens), places, strict=True):
        rows.setdefault(row, []).append((start, end))
    yield from rows.values()


def best_fit_decreasing(lengths: NDArray[np.int64], capacity: int) -> list[int]:
    """Return a row for each piece: from long to short, the fullest row with room for it, else a new one.

    Among equally long pieces the first comes first, among equally full rows the last one filled.

    Source: Ding et al., Fewer Truncations Improve Language Modeling, arXiv:2404.10830, section 3.
    """
    row_of = [0] * lengths.size
    free: list[int] = []  # the room left in some row, each value once, ascending
    rows_with: dict[int, list[int]] = {}
    rows = 0
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        found = bisect_left(free, length)
        if found == len(free):
            row, room = rows, capacity
            rows += 1
        else:
            room = free[found]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room], free[found]
        row_of[piece] = row
        if left := room - length:
            if left not in rows_with:
                rows_with[left] = []
                insort(free, left)
            rows_with[left].append(row)
    return row_of
