"""Finds code that knows a single member of a seam where it should ask any member through the protocol.

A member's home is the folder that is named after it, or its file; its registry may name it. Found elsewhere:

    import     an import of a module of the member's home
    class      any use of a class that is defined there, also its name as a string; and comparing types at all,
               by `type(x)`, `__class__` or `singledispatch`
    name       the member's name as a string, in whatever way it is used: a comparison, a key, a constant
    field      a field, attribute or method that only the member's home defines, read as an attribute; a field of
               its config also as a string
    attribute  asking what something has instead of what it is for: hasattr, getattr, vars, dir, `__dict__`,
               attrgetter, `except AttributeError`, whatever it is asked of

`lone_flags` finds what a protocol asks for the sake of one member: an attribute that one alone sets.

What cannot be seen so: a name that is put together at run time, and a comparison of values that only one member
returns.
"""

import ast
import dataclasses
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from arrows import arrows, modules

BUILT_IN = frozenset(name for kind in (str, bytes, list, dict, set, Enum, Path) for name in dir(kind)) | {
    "name",
    "type",
    "value",
}
"""Attributes that things have which are no members: their names tell nothing."""

VERSIONS = frozenset({"version", "family_version"})
"""Values that every member raises when its time comes: the first to do so is no special case."""

PLAIN_TYPES = frozenset({"int", "float", "str", "bytes", "bool", "list", "tuple", "dict", "set", "type"})

CONFIGS = ("config", "shape", "config_type")
"""Where a member that is no config itself names its own."""

ASKING = {
    **dict.fromkeys(
        ("hasattr", "getattr", "vars", "dir", "__dict__", "attrgetter", "AttributeError"), "attribute"
    ),
    **dict.fromkeys(("__class__", "singledispatch", "singledispatchmethod"), "class"),
}
"""Words that ask what something has, or what it is: the kind of find each is."""


@dataclass(frozen=True)
class Member:
    """One member as the checker sees it."""

    seam: str
    name: str
    module: str
    """Where the registry finds it."""
    fields: frozenset[str] = frozenset()
    """Fields of its config."""

    @property
    def home(self) -> str:
        """The folder named after the member, else its own module."""
        parent = self.module.rpartition(".")[0]
        return parent if parent.rpartition(".")[2] == self.name.replace("-", "_") else self.module

    def owns(self, module: str) -> bool:
        """Tell whether a module belongs to the member."""
        return module == self.home or module.startswith(f"{self.home}.")


@dataclass(frozen=True, order=True)
class Stranger:
    """A place that knows a member it should not know."""

    module: str
    line: int
    kind: str
    what: str
    member: frozenset[str] = field(default=frozenset(), compare=False)
    """Members that this may be about; none if the question is wrong whoever is asked."""


def strangers(members: Iterable[Member], registries: Iterable[str], root: Path) -> list[Stranger]:
    """Return every place outside members' homes and the registries that knows one of them."""
    members, naming = list(members), frozenset(registries)
    known = modules(root)
    homes = {name: {member.name for member in members if member.owns(name)} for name in known}
    found: set[Stranger] = set()
    for arrow in arrows(root):
        if arrow.source not in naming:
            found |= {
                Stranger(arrow.source, arrow.line, "import", arrow.target)
                for member in members
                if member.owns(arrow.target) and member.name not in homes[arrow.source]
            }
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in known.items()}
    knowledge = _knowledge(members, trees)
    for module, tree in trees.items():
        if module not in naming:
            found |= {each for each in _in_tree(module, tree, knowledge) if not each.member & homes[module]}
    return sorted(found)


@dataclass(frozen=True)
class Knowledge:
    """What tells a member from others: each word with the members that it is of."""

    names: Mapping[str, frozenset[str]]
    classes: Mapping[str, frozenset[str]]
    fields: Mapping[str, frozenset[str]]
    attributes: Mapping[str, frozenset[str]]


def _knowledge(members: Sequence[Member], trees: Mapping[str, ast.Module]) -> Knowledge:
    owners = {module: frozenset(member.name for member in members if member.owns(module)) for module in trees}
    classes: dict[str, frozenset[str]] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and owners[module]:
                classes[node.name] = classes.get(node.name, frozenset()) | owners[module]
    return Knowledge(
        {member.name.lower(): frozenset({member.name}) for member in members},
        classes,
        _lone_fields(members, trees, owners),
        _lone_attributes(trees, owners),
    )


def _lone_fields(
    members: Sequence[Member], trees: Mapping[str, ast.Module], owners: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Return field -> member for the fields that only one member of its seam has, and nothing outside its home."""
    counts = Counter((member.seam, name) for member in members for name in member.fields)
    found = {name: member for member in members for name in member.fields if counts[member.seam, name] == 1}
    common = set(BUILT_IN)
    for module, tree in trees.items():
        common |= {name for name in _defined(tree) if name in found and found[name].name not in owners[module]}
    return {name: frozenset({member.name}) for name, member in found.items() if name not in common}


def _lone_attributes(
    trees: Mapping[str, ast.Module], owners: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Return attribute or method -> member for those that classes of one home define, and no others of ours."""
    found: dict[str, frozenset[str]] = {}
    for module, tree in trees.items():
        for name in _defined(tree):
            found[name] = found.get(name, owners[module]) & owners[module]
    return {name: home for name, home in found.items() if home and name not in BUILT_IN and name[0] != "_"}


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that the classes of a module give to what they hold and do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.AnnAssign | ast.Assign):
                    targets = [child.target] if isinstance(child, ast.AnnAssign) else child.targets
                    yield from (target.id for target in targets if isinstance(target, ast.Name))
                elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield child.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def _in_tree(module: str, tree: ast.Module, knowledge: Knowledge) -> Iterator[Stranger]:
    texts, own, imported = _docstrings(tree), _own_classes(tree), _imported_modules(tree)

    def of(kind: str, node: ast.AST, what: str, members: frozenset[str] = frozenset()) -> Stranger:
        return Stranger(module, getattr(node, "lineno", 0), kind, what, members)

    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            for kind, words in (("class", knowledge.classes), ("field", knowledge.fields)):
                if node.value in words:
                    yield of(kind, node, node.value, words[node.value])
            if members := knowledge.names.get(node.value.lower()):
                yield of("name", node, node.value, members)
        elif isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            if word in knowledge.classes and word not in own:
                yield of("class", node, word, knowledge.classes[word])
            if word in ASKING:
                yield of(ASKING[word], node, word)
            if isinstance(node, ast.Attribute) and not (
                isinstance(node.value, ast.Name) and node.value.id in imported
            ):
                lone = knowledge.fields.get(word) or knowledge.attributes.get(word)
                if lone:
                    yield of("field", node, word, lone)
        elif isinstance(node, ast.Compare) and _compares_types(node):
            yield of("class", node, ast.unparse(node))


def _compares_types(node: ast.Compare) -> bool:
    """Tell whether `type(x)` is compared with anything but a type of Python's own."""
    sides = [node.left, *node.comparators]
    asked = [part for side in sides for part in ast.walk(side) if isinstance(part, ast.Call)]
    types = [
        part
        for part in asked
        if isinstance(part.func, ast.Name) and part.func.id == "type" and len(part.args) == 1
    ]
    plain = [side for side in sides if isinstance(side, ast.Name) and side.id in PLAIN_TYPES]
    return bool(types) and len(plain) < len(sides) - 1


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the nodes of strings that stand alone: they say something, and are used for nothing."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _own_classes(tree: ast.Module) -> set[str]:
    """Return the names that a module defines or imports: the import itself is what may know a member."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def _imported_modules(tree: ast.Module) -> set[str]:
    """Return the names by which a module knows others: what is read from them is no attribute of an object."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    return {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}


def lone_flags(seams: Mapping[str, Sequence[Any]]) -> set[tuple[str, str]]:
    """Return (seam, attribute) where one member alone sets something else than the protocol's default."""
    found = set()
    for seam, members in seams.items():
        counts = Counter(name for member in members for name in _set_by(member))
        found |= {(seam, name) for name, count in counts.items() if count == 1}
    return found


def _set_by(member: Any) -> set[str]:
    """Return the attributes that a member, or its config, sets to something else than the protocol does."""
    if dataclasses.is_dataclass(member) and not isinstance(member, type):
        settings = [each for each in dataclasses.fields(member) if each.default is not dataclasses.MISSING]
        return {each.name for each in settings if getattr(member, each.name) != each.default}
    if inspect.isfunction(member):
        member = get_type_hints(member)["return"]
    parts = [member, *(getattr(member, name, None) for name in CONFIGS)]
    classes = [part if isinstance(part, type) else type(part) for part in parts if part is not None]
    return {name for each in classes for name in _overridden(each)} - VERSIONS


def _overridden(member: type) -> Iterator[str]:
    """Yield the values of its base classes that a class replaces by others; its fields are its own business."""
    for base in member.__mro__[1:]:
        for name, value in vars(base).items():
            is_value = not (name.startswith("_") or callable(value) or inspect.isroutine(value))
            if is_value and isinstance(value, bool | int | float | str) and getattr(member, name) != value:
                yield name
