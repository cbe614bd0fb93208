"""What the registries of several seams ask of a member before they hand it out.

Each function raises an InputError that says "must ..., found ...": `storage.registry` puts before it whose piece
that is. What is looked at may be anything, since an installed package has put it there.
"""

from abc import ABCMeta
from typing import Any, Literal, get_args, get_origin

from storage.config import Config
from storage.errors import InputError


def check_class(found: Any, base: ABCMeta) -> None:
    """Raise InputError unless this is a class that derives from `base` and defines all that it leaves open."""
    if not isinstance(found, ABCMeta) or not issubclass(found, base):
        raise InputError(f"must be a class that derives from {base.__name__}, found {found!r:.200}")
    if missing := sorted(found.__abstractmethods__):
        raise InputError(f"must define all that {base.__name__} leaves open, found no {', '.join(missing)}")


def check_tag(config: Any, base: type[Config], field: str, name: str) -> None:
    """Raise InputError unless a config class tells itself from others by the registered name in a field."""
    check_class(config, base)
    tag = config.model_fields[field]
    literal = get_origin(tag.annotation) is Literal and get_args(tag.annotation) == (name,)
    if not literal or tag.default != name or tag.alias or tag.validation_alias:
        raise InputError(
            f"must have the registered name in its {config.__name__}, as `{field}: Literal[{name!r}] = {name!r}`, "
            f"found {tag!r:.200}"
        )


def check_name(found: Any, name: str) -> None:
    """Raise InputError unless what a member calls itself is the name under which it is registered."""
    if found != name:
        raise InputError(f"must be registered under the name that it gives itself, found {found!r:.200}")


def check_version(found: Any) -> None:
    """Raise InputError unless a version is a whole number."""
    if type(found) is not int:
        raise InputError(f"must have a version that is a whole number, found {found!r:.200}")
