"""The base of every configuration class."""

from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """What a user may choose; refuses unknown fields and later changes.

    A docstring under a field becomes its description in `pile recipes` and in Prefect's forms.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=True
    )

    excluded_from_key: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies or how it is fetched, not what the result is."""

    def outside_key(self) -> frozenset[str]:
        """Return the fields that do not decide the result of this config: `excluded_from_key` or some of them.

        Overridden where one field says whether another decides: what only watches may choose in another config.
        """
        return self.excluded_from_key

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the result, as plain JSON values."""
        outside = self.outside_key()
        return {
            name: _identity(value)
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
            if name not in outside
        }


ConfigT = TypeVar("ConfigT", bound=Config)


def changed(config: ConfigT, /, **changes: object) -> ConfigT:
    """Return a validated copy with some fields replaced; a misspelt field raises."""
    return type(config).model_validate({**dict(config), **changes})


def _identity(value: object) -> Any:
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, tuple):
        return [_identity(item) for item in value]
    if isinstance(value, dict):
        return {name: _identity(item) for name, item in value.items()}
    return value
