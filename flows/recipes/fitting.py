"""What was written, as what the field wants that it stands for; what cannot be fitted is left for the check."""

from typing import Any

from flows.recipes.places import Place
from flows.recipes.yaml_core import Plain

OFF = frozenset({"off", "no", "false"})
"""Words for a stage that is off, besides null and false. To YAML 1.2 they are text."""

EXACT = 2**53
"""Below this every whole number can be written as a float, so that 1e6 is no other number than 1000000."""


def fit(value: Any, place: Place | None) -> Any:
    """Return JSON values for what was read from a file or an option.

    `1e3`, `true` and `0100` without quotes are text where a field wants text, `1e6` is a whole number where it
    wants one, a single value is a list of one where it wants a list, and `off` is null where a stage may be off.
    """
    if place is None:
        return _without_place(value)
    if isinstance(value, dict):
        place = place.given(value)
        return {name: fit(item, place.step(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [fit(item, place.step(str(index)) if place.is_list else None) for index, item in enumerate(value)]
    if place.is_list:
        return _list_of_one(value, place)
    return _fit_scalar(value, place)


def _fit_scalar(value: Any, place: Place) -> Any:
    text, value = (value.text, value.value) if isinstance(value, Plain) else (value, value)
    if (
        place.is_section
        and place.may_be_null
        and (value is False or (isinstance(value, str) and value.lower() in OFF))
    ):
        return None
    if place.is_text and isinstance(text, str):
        return text
    if place.is_whole_number and isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return value


def _list_of_one(value: Any, place: Place) -> Any:
    inner = place.step("0")
    if value is None or inner is None or inner.is_list:
        return _without_place(value)
    return [_fit_scalar(value, inner)]


def _without_place(value: Any) -> Any:
    if isinstance(value, Plain):  # before the tuple that it is
        return value.value
    if isinstance(value, dict):
        return {name: _without_place(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_place(item) for item in value]
    return value


def unpaired(value: Any, path: str = "") -> str | None:
    """Return the place of a text that UTF-8 cannot hold, such as JSON's `"\\ud800"`; None if there is none."""
    if isinstance(value, str):
        return path if value.encode("utf-8", "ignore").decode() != value else None
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        below = f"{path}.{name}" if path else str(name)
        if (found := unpaired(str(name), below) or unpaired(item, below)) is not None:
            return found
    return None
