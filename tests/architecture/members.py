"""Finds code that knows a single member of a seam where it should ask any member through the protocol.

A member's home is the folder that is named after it, or its file; its registry may name it. Found elsewhere:

    import     an import of a module of the member's home
    class      isinstance, issubclass or a match of a class that is defined there
    name       a comparison with the member's name, or a match of it
    field      reading a field that only this member's config has: one that is defined in the member's home, and
               by nothing else, so that the name alone tells whose it is
    attribute  hasattr, or getattr with a constant name, whatever it is asked of
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arrows import arrows, modules


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
    member: str = field(default="", compare=False)


def strangers(members: Iterable[Member], registries: Iterable[str], root: Path) -> list[Stranger]:
    """Return every place outside members' homes and the registries that knows one of them."""
    members, naming = list(members), frozenset(registries)
    known = modules(root)
    homes = {name: {member.name for member in members if member.owns(name)} for name in known}
    found: set[Stranger] = set()
    for arrow in arrows(root):
        if arrow.source not in naming and not homes[arrow.source]:
            found |= {
                Stranger(arrow.source, arrow.line, "import", arrow.target, member.name)
                for member in members
                if member.owns(arrow.target)
            }
    classes = _classes(members, known)
    names = {member.name for member in members}
    fields = _lone_fields(members, known)
    for module, path in known.items():
        if module not in naming:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {
                stranger
                for stranger in _in_tree(module, tree, names, classes, fields)
                if not stranger.member or stranger.member not in homes[module]
            }
    return sorted(found)


def _classes(members: Iterable[Member], known: Mapping[str, Path]) -> dict[str, str]:
    """Return class -> member for every class that is defined in a member's home."""
    found = {}
    for member in members:
        for module, path in known.items():
            if member.owns(module):
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.ClassDef):
                        found[node.name] = member.name
    return found


def _lone_fields(members: Iterable[Member], known: Mapping[str, Path]) -> dict[str, str]:
    """Return field -> member for the fields that only one member has, and nothing outside its home."""
    found: dict[str, Member] = {}
    by_seam: dict[str, list[Member]] = {}
    for member in members:
        by_seam.setdefault(member.seam, []).append(member)
    for group in by_seam.values():
        counts = Counter(name for member in group for name in member.fields)
        found |= {name: member for member in group for name in member.fields if counts[name] == 1}
    common = {name for kind in (str, bytes, list, Path) for name in dir(kind)}
    for module, path in known.items():
        for name in _attributes(ast.parse(path.read_text(encoding="utf-8"))):
            if name in found and not found[name].owns(module):
                common.add(name)
    return {name: member.name for name, member in found.items() if name not in common}


def _attributes(tree: ast.AST) -> Iterator[str]:
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


def _in_tree(
    module: str, tree: ast.AST, names: set[str], classes: Mapping[str, str], fields: Mapping[str, str]
) -> Iterator[Stranger]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for text in _texts([node.left, *node.comparators]):
                if text in names:
                    yield Stranger(module, node.lineno, "name", text, text)
        elif isinstance(node, ast.MatchValue):
            for text in _texts([node.value]):
                if text in names:
                    yield Stranger(module, node.value.lineno, "name", text, text)
        elif isinstance(node, ast.MatchClass):
            yield from _class_strangers(module, node.cls, classes)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from _call_strangers(module, node, node.func.id, classes)
        elif isinstance(node, ast.Attribute) and node.attr in fields:
            yield Stranger(module, node.lineno, "field", node.attr, fields[node.attr])


def _call_strangers(module: str, node: ast.Call, function: str, classes: Mapping[str, str]) -> Iterator[Stranger]:
    if function in ("isinstance", "issubclass") and len(node.args) == 2:
        yield from _class_strangers(module, node.args[1], classes)
    constant = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
    if function == "hasattr" or (function == "getattr" and constant):
        yield Stranger(module, node.lineno, "attribute", ast.unparse(node))


def _class_strangers(module: str, node: ast.AST, classes: Mapping[str, str]) -> Iterator[Stranger]:
    for part in ast.walk(node):
        name = part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""
        if name in classes:
            yield Stranger(module, getattr(part, "lineno", 0), "class", name, classes[name])


def _texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value
