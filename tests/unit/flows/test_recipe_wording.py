"""Messages about recipes speak of fields and values: nothing of pydantic or Python comes through."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from flows.recipes.places import Place, recipe_place
from flows.recipes.reading import find_recipe
from flows.recipes.registry import RECIPES
from storage.errors import InputError

WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, -(10**30), 10**30, 2.5, -1e300, float("inf"), float("nan"), "", "off", "on", "yes",
    "abc", "a b\n", "x" * 1000, "\ud800", [], [None], [[]], [{}], ["a", 1, {"b": 2}], {}, {"a": None},
    {"": ""}, {"kind": 3}, {"rule": "length"}, {"preset": 3}, {"name": None},
)  # fmt: skip

FOREIGN = re.compile(
    r"Input should|Input could|type=|Value error|ValidationError|valid (integer|string|number|dict|list|tuple)|"
    r"Assertion failed|Field required|Extra inputs|Traceback|NoneType|\bdict\b|\bstr\b|\bint\b|\bbool\b|tuple|"
    r"<class|pydantic|[A-Za-z0-9]+Config\b|[A-Za-z0-9]+Shape\b|Union|discriminator|for further|\bNone\b|\bTrue\b|"
    r"\bFalse\b|another value"
)


def values_of(fields: Any, place: Place | None, path: str) -> Iterator[str]:
    """Yield the dotted names of all places of a recipe that an option can set."""
    if path:
        yield path
    if isinstance(fields, dict):
        place = place.given(fields) if place else None
        names = dict.fromkeys([*fields, *(place.fields if place else ())])
        for name in names:
            if place is None or place.step(name) is not None:
                below = place.step(name) if place else None
                yield from values_of(fields.get(name), below, f"{path}.{name}" if path else name)


@pytest.mark.parametrize("name", RECIPES)
def test_no_wrong_value_brings_up_words_that_are_not_ours(name: str) -> None:
    fields = find_recipe(name).model_dump(mode="json")
    refused = 0
    for path in values_of(fields, recipe_place(), ""):
        for value in WRONG:
            try:
                find_recipe(name, {path: value})
            except InputError as error:
                refused += 1
                message = str(error)
                assert not FOREIGN.search(message), (path, value, message)
                assert path.split(".")[0] in message
                assert len(message) < 2000
    assert refused > 1000


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        find_recipe("demo", {"train.max_steps": 0, "train.learning_rate": "a", "pack.sequence_length": 1})
    for field in ("train.max_steps: ", "train.learning_rate: ", "pack.sequence_length: "):
        assert field in str(caught.value)


def test_password_in_an_address_is_not_shown() -> None:
    address = "https://user:s3cret@mirror.test/x"
    for field in (
        "train.max_steps",
        "train.model",
        "publish.name",
        "execution.engine",
        "download.shard_bytes",
        "x",
    ):
        for value in (address, [address], {"url": address}):
            with pytest.raises(InputError) as caught:
                find_recipe("demo", {field: value})
            assert "s3cret" not in str(caught.value), field
