"""Messages about recipes speak of fields and values: nothing of pydantic or Python comes through."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from flows.recipes.places import Place, recipe_place
from flows.recipes.reading import find_recipe
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


def leaves(fields: Any, place: Place | None, path: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of a recipe that hold no others."""
    if isinstance(fields, dict) and fields:
        place = place.given(fields) if place else None
        for name in dict.fromkeys([*fields, *(place.fields if place else ())]):
            below = place.step(name) if place else None
            if below is not None:
                yield from leaves(fields.get(name), below, f"{path}.{name}" if path else name)
    else:
        yield path


def refusal(name: str, overrides: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        find_recipe(name, overrides)
    message = str(caught.value)
    assert not FOREIGN.search(message), message
    return message


@pytest.mark.parametrize("name", ["demo", "own-files", "pile", "gpt2-124m", "world-1m"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
def test_no_wrong_value_of_a_field_brings_up_words_that_are_not_ours(name: str, value: Any) -> None:
    paths = list(leaves(find_recipe(name).model_dump(mode="json"), recipe_place()))
    assert len(paths) > 100
    refusal(name, dict.fromkeys(paths, value))


@pytest.mark.parametrize(
    "section",
    ["train", "filter", "execution", "train.model", "download.source", "filter.shingles", "filter.policies",
     "filter.policies.web", "filter.policies.web.rules", "execution.engine", "evaluate.prompts"],
)  # fmt: skip
def test_no_wrong_value_of_a_section_brings_up_words_that_are_not_ours(section: str) -> None:
    for value in (True, 3, 2.5, "on", "abc", [None], [[]], ["a", 1, {"b": 2}], {"kind": 3}, {"name": 4, "": ""}):
        if section == "evaluate.prompts" and not isinstance(value, list | dict):
            continue  # a list of one
        message = refusal("demo", {section: value})
        assert section.split(".")[0] in message
        assert len(message) < 1000


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
