"""Rules that are none."""

from typing import Any, Literal

from tasks.filter.rules.length import Length, LengthRule


def function(_: Any) -> int:
    return 1


class SameConfig(LengthRule):
    pass


class MisspeltConfig(Length):
    rule: Literal["mispelt"] = "mispelt"  # type: ignore[assignment]


class Misspelt(LengthRule):
    config_type = MisspeltConfig
