"""The world family as a folder that brings its own code: the modules that trained, made flat.

transformers knows no such model; it loads `configuration_world.py` and `modeling_world.py` of the folder with
`trust_remote_code=True`. Those two wrap our modules, which are copied beside them: all that they import from this
package, with `from model.x.y import z` turned into `from .y import z`. Only imports change.
"""

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.export.fields import Fields
from model.export.tensors import LazyTensors, renamed
from model.families.world.config import WorldConfig
from storage.errors import Fault

PREFIX = "model."
MODEL_TYPE = "pile_world"

ENTRY = "model.families.world.export.code.modeling_world"
CONFIGURATION = "model.families.world.export.code.configuration_world"
LABELS = ("has_trained_heads", "tone_token_id", "field_token_id", "tone_names", "field_names")
"""Fields of config.json that say what the heads know; they change nothing that the model computes."""
SAME_AS = {"model.families.world.config": CONFIGURATION}
"""Modules that a folder has in another form: the published config has the same attributes without pydantic."""
LIBRARIES = {"torch", "transformers"}
"""What the code of a folder may import, outside of `try`, beside itself and Python's own modules."""

_IMPORT = re.compile(r"^(\s*from )(model(?:\.\w+)+)( import )", re.MULTILINE)


def to_world(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename our parameters and the routers' bias to those of the published class."""
    return renamed(state_dict, lambda name: PREFIX + name)


def from_world(state_dict: Mapping[str, Tensor]) -> LazyTensors:
    """Rename the parameters of the published class to ours."""
    return renamed(state_dict, lambda name: name.removeprefix(PREFIX))


def world_config(config: WorldConfig) -> dict[str, Any]:
    """Return config.json without token ids: our own fields, and where the code lies."""
    fields = {name: value for name, value in config.identity().items() if name != "family"}
    return {
        **fields,
        "architectures": ["WorldForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_world.WorldConfig",
            "AutoModelForCausalLM": "modeling_world.WorldForCausalLM",
        },
        "model_type": MODEL_TYPE,
    }


def read_world_config(fields: Fields) -> WorldConfig:
    """Return our config of a published world model."""
    for name in (*LABELS, "tie_word_embeddings"):
        fields.take(name, None)
    ours = {name: fields.take(name) for name in WorldConfig.model_fields if name != "family"}
    return fields.config(WorldConfig, **ours)


def write_code(folder: Path) -> None:
    """Write the modules that a published world model needs into its folder."""
    for name, source in code_files().items():
        (folder / name).write_text(source, encoding="utf-8")


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
