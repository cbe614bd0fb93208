import datetime
import decimal
import enum
import hashlib
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.canonical import artifact_key, canonical_json, fingerprint

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def typed(value: Any) -> Any:
    """Return a value that is equal for equal JSON only: Python holds 1, 1.0 and True for the same."""
    if isinstance(value, dict):
        return "object", frozenset((name, typed(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return "array", tuple(typed(item) for item in value)
    return type(value).__name__, value


def shuffled(value: Any, order: random.Random) -> Any:
    """Return an equal value whose objects were filled in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(item, order)) for name, item in value.items()]
        order.shuffle(items)
        return dict(items)
    return tuple(shuffled(item, order) for item in value) if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_is_read_back_as_the_same_value(value: Any) -> None:
    # Whatever can be decoded to what it was has an encoding of its own: different values, different bytes.
    assert typed(json.loads(canonical_json(value))) == typed(value)


@given(VALUES, st.randoms(use_true_random=False))
def test_canonical_json_of_equal_values_is_equal_in_any_order(value: Any, order: random.Random) -> None:
    assert canonical_json(shuffled(value, order)) == canonical_json(value)


@given(VALUES, VALUES)
def test_canonical_json_is_equal_exactly_for_equal_values(first: Any, second: Any) -> None:
    assert (canonical_json(first) == canonical_json(second)) == (typed(first) == typed(second))


ALIKE: list[Any] = [
    0, 0.0, False, None, "", "0", "null", [], {}, [0], [[]], [None], {"": 0}, {"0": 0}, {"": None},
    1, 1.0, True, "1", "true", [1], ["1"], ["", ""], [""], {"a": [1, 2]}, {"a": [12]}, ["a", [1, 2]],
    1e22, 10**22, 0.1, 0.1 + 2**-56, 2**53, 2**53 + 1, "é", "e\u0301", "\x00", "\\u0000", '"', "\\",
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(ALIKE, 2)], ids=repr)
def test_canonical_json_of_values_that_look_alike_differs(first: Any, second: Any) -> None:
    assert canonical_json(first) != canonical_json(second)


def test_canonical_json_of_negative_zero_is_that_of_zero() -> None:
    assert canonical_json(-0.0) == canonical_json(0.0)


class Colour(enum.StrEnum):
    RED = "red"


class Number(int):
    pass


NOT_JSON: list[Any] = [
    np.float64(1.0), np.int64(1), np.bool_(True), np.array([1]), Path("a"), {1, 2}, frozenset(), b"a",
    bytearray(b"a"), datetime.date(2026, 1, 1), decimal.Decimal(1), Colour.RED, Number(1), object(), len, 1j,
    range(3), iter([]),
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_JSON, ids=lambda value: type(value).__name__)
def test_canonical_json_of_a_type_that_json_lacks_is_an_error_that_names_the_place(value: Any) -> None:
    with pytest.raises(TypeError, match=rf"\$\.a\[1\]\.b .*{type(value).__name__}"):
        canonical_json({"z": 0, "a": [0, {"b": value}]})


@pytest.mark.parametrize("key", [1, None, 1.5, True, ("a",), Colour.RED], ids=repr)
def test_canonical_json_with_a_key_that_is_not_text_is_an_error_that_names_the_place(key: Any) -> None:
    with pytest.raises(TypeError, match=r"\$\.a\[0\]"):
        canonical_json({"a": [{key: 1}]})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_canonical_json_of_a_number_that_is_not_finite_is_an_error_that_names_the_place(value: float) -> None:
    with pytest.raises(ValueError, match=r"\$\.loss\[0\].*finite"):
        canonical_json({"loss": [value]})


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": {"\udfff": 1}}], ids=["value", "key"])
def test_canonical_json_of_a_lone_surrogate_is_an_error_that_names_the_place(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\$\.a.*Unicode"):
        canonical_json(value)


def test_artifact_key_is_the_hash_of_what_decides_the_result() -> None:
    # Written out by hand: a release that encodes differently would find none of its users' artifacts.
    text = '{"config":{"d":1.0,"n":[1,"ж"]},"inputs":{"corpus":"ff"},"stage":"filter","version":2}'
    key = artifact_key("filter", 2, {"n": [1, "ж"], "d": 1.0}, {"corpus": "ff"})
    assert key == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "changed",
    [
        ("dedup", 2, {"n": 1}, {"a": "b"}),
        ("filter", 3, {"n": 1}, {"a": "b"}),
        ("filter", 2, {"n": 1.0}, {"a": "b"}),
        ("filter", 2, {"n": 1}, {"a": "c"}),
        ("filter", 2, {"n": 1}, {"c": "b"}),
    ],
    ids=["stage", "version", "config", "content", "role of the input"],
)
def test_artifact_key_changes_with_everything_that_decides_the_result(changed: tuple[Any, ...]) -> None:
    assert artifact_key(*changed) != artifact_key("filter", 2, {"n": 1}, {"a": "b"})


def test_fingerprint_is_the_sha256_of_the_encoding() -> None:
    assert fingerprint([1, 2]) == hashlib.sha256(b"[1,2]").hexdigest()
