"""Registries: the members of a seam by name, ours and those of installed packages.

A seam is a protocol whose docstring says what a member promises. Its registry stands in one visible place and
names our members; any other package adds its own through an entry point of the seam's group, without a fork:

    [project.entry-points."pile_pipeline.sources"]
    my-source = "my_package.my_module:MY_SOURCE"

A member is imported when it is first asked for, so that a registry costs nothing to import. What a package brings
may be broken in any way: such a piece is named, with its package, and left out, and all others work.
"""

import importlib
import importlib.metadata
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

from storage.errors import InputError
from storage.suggestions import did_you_mean

log = logging.getLogger(__name__)

MemberT = TypeVar("MemberT")

OWN_PACKAGE = "pile-pipeline"


@dataclass(frozen=True)
class Entry:
    """One line of a registry."""

    name: str
    reference: str
    """Where the member is, as `module:attribute`."""
    package: str
    """Distribution that brings it."""
    version: str
    """Version of that distribution, '' if it is not installed as one."""

    @property
    def is_own(self) -> bool:
        """Whether it is a line of ours."""
        return self.package == OWN_PACKAGE

    @property
    def origin(self) -> str:
        """Package and reference, for messages."""
        return f"{self.package} {self.version}".strip() + f" ({self.reference})"


def _no_claims(_: Any) -> Iterable[str]:
    return ()


class Registry(Generic[MemberT]):
    """The members of one seam."""

    def __init__(
        self,
        kind: str,
        group: str,
        members: Mapping[str, str],
        check: Callable[[str, MemberT], None],
        claims: Callable[[MemberT], Iterable[str]] = _no_claims,
    ) -> None:
        """Name the seam (`source`), its entry-point group, and our members as name -> `module:attribute`.

        `check(name, member)` raises an InputError, "must ..., found ...", for what is no member of that name: it
        sees whatever a package has put there. `claims(member)` is what only one member can have, in words:
        "files that end in .csv".
        """
        self.kind = kind
        self.group = group
        self._own = dict(members)
        self._check = check
        self._claims = claims
        self._loaded: dict[Entry, MemberT] = {}
        self._problems: dict[Entry, InputError | None] = {}
        self._logged: set[str] = set()

    def names(self) -> tuple[str, ...]:
        """Return the names of all members, ours first; also of those that `get` refuses."""
        return tuple(self.entries)

    def get(self, name: str) -> MemberT:
        """Return a member.

        Raises: InputError if there is none of that name, two packages bring one, or the one that there is cannot
        be used.
        """
        if name not in self.entries:
            raise InputError(
                f"a {self.kind} must be one of {', '.join(self.entries)}, found {name!r}"
                f"{did_you_mean(name, self.entries)}"
            )
        entry = self.entries[name]
        if problem := self.problem(entry):
            raise InputError(str(problem)) from problem.__cause__
        return self._loaded[entry]

    def members(self) -> Iterator[tuple[str, MemberT]]:
        """Yield all members; one of another package that cannot be used is logged, once, and left out."""
        for entry in self.lines:
            problem = self.problem(entry)
            if problem is None:
                yield entry.name, self._loaded[entry]
            elif entry.is_own:
                raise problem
            elif str(problem) not in self._logged:
                self._logged.add(str(problem))
                log.warning("%s", problem)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The lines of the registry by name; ours, or the first, where several have one name."""
        found: dict[str, Entry] = {}
        for entry in self.lines:
            found.setdefault(entry.name, entry)
        return found

    @cached_property
    def lines(self) -> tuple[Entry, ...]:
        """Every line of the registry, ours first; several may have one name."""
        found = [Entry(name, reference, OWN_PACKAGE, "") for name, reference in self._own.items()]
        theirs = []
        for point in _entry_points(tuple(sys.path)).select(group=self.group):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "")
            theirs.append(Entry(point.name, point.value, package, version))
        for entry in sorted(theirs, key=lambda entry: (entry.name, entry.package, entry.reference)):
            if (entry.name, entry.reference) not in {(other.name, other.reference) for other in found}:
                found.append(entry)
        return tuple(found)

    def problem(self, entry: Entry) -> InputError | None:
        """Return why a line gives no member, None if it gives one.

        Raises: whatever keeps a member of ours from being imported.
        """
        if entry not in self._problems:
            self._problems[entry] = self._name_taken(entry) or self._not_loaded(entry) or self._claimed(entry)
        return self._problems[entry]

    def _name_taken(self, entry: Entry) -> InputError | None:
        """A name of ours stays ours; of two packages neither has it, since a recipe must not depend on chance."""
        same = [other for other in self.lines if other.name == entry.name]
        if entry.is_own or len(same) == 1:
            return None
        if same[0].is_own:
            return InputError(
                f"the {self.kind} {entry.name!r} of {entry.origin} must have a name of its own, found that of "
                f"{same[0].origin}, which stays; rename it or uninstall {entry.package}"
            )
        found = " and ".join(other.origin for other in same)
        return InputError(
            f"the {self.kind} {entry.name!r} must come from one package, found it in {found}; uninstall one"
        )

    def _not_loaded(self, entry: Entry) -> InputError | None:
        """Load what a line names, once if that succeeds; whether another has its name plays no part."""
        if entry not in self._loaded:
            try:
                self._loaded[entry] = self._load(entry)
            except InputError as problem:
                return problem
        return None

    def _load(self, entry: Entry) -> MemberT:
        try:
            member: MemberT = load(entry.reference)
        except (Exception, SystemExit) as error:
            if entry.is_own:
                raise
            raise self._refusal(entry, f"must be importable, but {_one_line(error)}") from error
        try:
            self._check(entry.name, member)
        except InputError as error:
            raise self._refusal(entry, str(error)) from None
        except (Exception, SystemExit) as error:
            raise self._refusal(entry, f"must be what the seam asks for, but {_one_line(error)}") from error
        return member

    def _claimed(self, entry: Entry) -> InputError | None:
        """Find what another has too: one of ours keeps it, of two packages neither does."""
        for other in self.lines:
            if other == entry or (entry.is_own and not other.is_own) or self._not_loaded(other):
                continue
            theirs = set(self._claims(self._loaded[other]))
            if twice := [claim for claim in self._claims(self._loaded[entry]) if claim in theirs]:
                text = f"must be the only one for {twice[0]}, found {other.name!r} of {other.origin} too"
                return self._refusal(entry, text)
        return None

    def _refusal(self, entry: Entry, text: str) -> InputError:
        advice = "mend it" if entry.is_own else f"mend or uninstall {entry.package}"
        return InputError(f"the {self.kind} {entry.name!r} of {entry.origin} {text}; {advice}")


@cache
def _entry_points(path: tuple[str, ...]) -> Any:  # its class depends on the version of Python
    """Return what all packages on the path register, for `select`.

    Read once and not for every seam: a package that is installed later is seen by a new process.
    """
    return importlib.metadata.entry_points()


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class LazyFunction:
    """A function named as `module:attribute`, imported when it is first called: to be named costs nothing."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return load(self.reference)(*arguments, **options)

    def __repr__(self) -> str:
        return f"LazyFunction({self.reference!r})"


def load(reference: str) -> Any:
    """Return what `module:attribute` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
