"""The code of a world model's folder: the modules that trained, made flat.

transformers knows no such model; it loads `configuration_world.py` and `modeling_world.py` of the folder with
`trust_remote_code=True`. Those two wrap our modules, which are copied beside them: all that they import from this
package, with `from model.x.y import z` turned into `from .y import z`. Only imports change.
"""

import ast
import re
import sys
from pathlib import Path

from storage.errors import Fault

ENTRY = "model.families.world.export.code.modeling_world"
CONFIGURATION = "model.families.world.export.code.configuration_world"
SAME_AS = {"model.families.world.config": CONFIGURATION}
"""Modules that a folder has in another form: the published config has the same attributes without pydantic."""
LIBRARIES = {"torch", "transformers"}
"""What the code of a folder may import, outside of `try`, beside itself and Python's own modules."""

_IMPORT = re.compile(r"^(\s*from )(model(?:\.\w+)+)( import )", re.MULTILINE)


def code_files() -> dict[str, str]:
    """Return the source of each file of code.

    Raises: Fault if a module imports what a published folder does not have.
    """
    waiting = [ENTRY]
    files: dict[str, str] = {}
    origins: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        name = f"{module.rpartition('.')[2]}.py"
        if origins.setdefault(name, module) != module:
            raise Fault(f"modules of a published model must have different names, found two {name}; rename one")
        if name in files:
            continue
        source = _source(module)
        needed = _project_imports(module, source)
        waiting += [SAME_AS.get(other, other) for other in needed]
        files[name] = _IMPORT.sub(_made_relative, source)
    return dict(sorted(files.items()))


def _source(module: str) -> str:
    root = Path(__file__).parents[4]
    return (root / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def _project_imports(module: str, source: str) -> list[str]:
    """Return the modules of this package that a source imports, those for type checkers included."""
    found: list[str] = []
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Try):  # an optional library, which transformers does not ask for either
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else ["."]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top == "model" and isinstance(node, ast.ImportFrom) and name.count("."):
                found.append(name)
            elif top not in sys.stdlib_module_names | LIBRARIES:
                raise Fault(
                    f"{module} is published as code and must import `from model.x import y`, Python's own modules "
                    f"and {', '.join(sorted(LIBRARIES))} only, found {name!r}"
                )
    return found


def _made_relative(match: re.Match[str]) -> str:
    name = SAME_AS.get(match[2], match[2]).rpartition(".")[2]
    return f"{match[1]}.{name}{match[3]}"
