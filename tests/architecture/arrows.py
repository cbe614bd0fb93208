"""Who imports whom, read from the source: lazy imports count, those for type checkers, and lines of registries.

import-linter cannot see the `"module:attribute"` strings by which a registry names its members.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "model", "storage")
PLACE = re.compile(r"((?:flows|tasks|model|storage)(?:\.\w+)+)(?::\w+)?")
"""A module of ours, or one of its attributes, named in a string."""


@dataclass(frozen=True)
class Arrow:
    """One module names another."""

    source: str
    target: str
    line: int
    kind: str
    """`top`, `lazy` (inside a function), `typing` (for type checkers) or `string`."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return all modules of the project, a package under its own name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def arrows(root: Path = ROOT) -> list[Arrow]:
    """Return every arrow between modules of the project."""
    known = modules(root)
    found = []
    for name, path in known.items():
        found += [
            Arrow(name, target, line, kind)
            for target, line, kind in _named(ast.parse(path.read_text(encoding="utf-8")), known)
            if target != name
        ]
    return found


def string_places(root: Path = ROOT) -> list[tuple[str, int, str]]:
    """Return module, line and text of every string that is the name of another module, or of something in one."""
    known = modules(root)
    return [
        (name, node.lineno, node.value)
        for name, path in known.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and PLACE.fullmatch(node.value)
        and node.value.partition(":")[0] in known.keys() - {name}
    ]


def circles(all_arrows: list[Arrow]) -> list[list[str]]:
    """Return the groups of siblings, modules or folders of one folder, that reach each other by arrows."""
    edges: dict[str, dict[str, set[str]]] = {}
    for arrow in all_arrows:
        source, target = arrow.source.split("."), arrow.target.split(".")
        depth = next((i for i, (a, b) in enumerate(zip(source, target, strict=False)) if a != b), None)
        if depth is None:  # a folder and something inside it
            continue
        folder = ".".join(source[:depth])
        edges.setdefault(folder, {}).setdefault(".".join(source[: depth + 1]), set()).add(
            ".".join(target[: depth + 1])
        )
    found = []
    for graph in edges.values():
        found += [sorted(group) for group in _strongly_connected(graph) if len(group) > 1]
    return sorted(found)


def _named(tree: ast.Module, known: dict[str, Path]) -> Iterator[tuple[str, int, str]]:
    for node, kind in _statements(tree, "top"):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module or "" for name in names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            names, kind = [node.value.partition(":")[0]], "string"
        else:
            continue
        for name in names:
            if name in known:
                yield name, node.lineno, kind


def _statements(node: ast.AST, kind: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        inner = kind
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "lazy"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = "typing"
        yield child, inner
        yield from _statements(child, inner)


def _strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components: nodes that reach each other."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups: list[set[str]] = []
    for node in graph:
        group = {other for other in reach[node] if node in reach.get(other, set())} | {node}
        if group not in groups:
            groups.append(group)
    return groups


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for target in graph.get(left.pop(), set()) - seen:
            seen.add(target)
            left.append(target)
    return seen
