"""Registries: the members of a seam by name, ours and those of installed packages.

A seam is a protocol whose docstring says what a member promises. Its registry stands in one visible place and
names our members; any other package adds its own through an entry point of the seam's group, without a fork:

    [project.entry-points."pile_pipeline.sources"]
    my-source = "my_package.my_module:MY_SOURCE"

A member is imported when it is first asked for, so that a registry costs nothing to import.
"""

import importlib
import importlib.metadata
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from storage.errors import InputError

log = logging.getLogger(__name__)

MemberT = TypeVar("MemberT")

OWN_PACKAGE = "pile-pipeline"


@dataclass(frozen=True)
class Entry:
    """One line of a registry."""

    name: str
    place: str
    """Where the member is, as `module:attribute`."""
    package: str
    """Distribution that brings it."""
    version: str
    """Version of that distribution, '' if it is not installed as one."""


class Registry(Generic[MemberT]):
    """The members of one seam."""

    def __init__(self, kind: str, group: str, members: Mapping[str, str]) -> None:
        """Name the seam (`source`), its entry-point group, and our members as name -> `module:attribute`."""
        self.kind = kind
        self.group = group
        self._own = dict(members)
        self._loaded: dict[str, MemberT] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all members, ours first."""
        return tuple(self.entries)

    def get(self, name: str) -> MemberT:
        """Return a member.

        Raises: InputError if there is none of that name, or the package that brings it cannot be imported.
        """
        if name not in self.entries:
            raise InputError(f"a {self.kind} must be one of {', '.join(self.entries)}, found {name!r}")
        if name not in self._loaded:
            self._loaded[name] = _load(self.kind, self.entries[name])
        return self._loaded[name]

    def members(self) -> Iterator[tuple[str, MemberT]]:
        """Yield all members; one of another package that cannot be imported is logged and left out."""
        for name, entry in self.entries.items():
            try:
                yield name, self.get(name)
            except InputError as error:
                if entry.package == OWN_PACKAGE:
                    raise
                log.warning("%s", error)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The lines of the registry by name.

        Raises: InputError if two packages give the same name: what a recipe means must not depend on chance.
        """
        found = {name: Entry(name, place, OWN_PACKAGE, "") for name, place in self._own.items()}
        for point in sorted(importlib.metadata.entry_points(group=self.group), key=lambda point: point.name):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
            if point.name in found and found[point.name].place != point.value:
                raise InputError(
                    f"the {self.kind} {point.name!r} must come from one package, found it in "
                    f"{found[point.name].package} and {package}; uninstall one of them"
                )
            found.setdefault(point.name, Entry(point.name, point.value, package, version))
        return found


class LazyFunction:
    """A function named as `module:attribute`, imported when it is first called: to be named costs nothing."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return load(self.place)(*arguments, **options)

    def __repr__(self) -> str:
        return f"LazyFunction({self.place!r})"


def load(place: str) -> Any:
    """Return what `module:attribute` names."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load(kind: str, entry: Entry) -> Any:
    try:
        return load(entry.place)
    except Exception as error:
        if entry.package == OWN_PACKAGE:
            raise
        raise InputError(
            f"the {kind} {entry.name!r} of the package {entry.package} {entry.version} must be importable as "
            f"{entry.place}, but {type(error).__name__}: {error}; mend or uninstall that package"
        ) from error
