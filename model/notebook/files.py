"""A model in one file, for notebooks: safetensors with the model config in its header.

A `.pth` file is read as plain tensors only: nothing in it is executed.
"""

import errno
import os
import pickle
import re
import struct
import textwrap
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.export.saving import assign_weights, save_tensors
from model.families.base import ModelConfig
from model.families.registry import AnyConfig, build_model
from model.layers.language_model import LanguageModel
from storage.errors import InputError

HEADER = "pile-pipeline.model"
"""Entry of the file's header that holds the model config as JSON."""

UNREADABLE = (
    *(pickle.UnpicklingError, EOFError, struct.error, RuntimeError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)
"""What torch raises for a damaged pickle: it reads on until something does not fit."""


def save(model: LanguageModel, path: str | Path) -> None:
    """Write a model to a `.safetensors` file, in a folder that is made if need be; never half of it.

    Raises: ValueError for another ending or what `torch.compile` returned; OSError.
    """
    path = check_path(path)
    check_model(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_tensors(tensors, unfinished, {HEADER: model.config.model_dump_json()})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | Path, config: ModelConfig | None = None) -> LanguageModel:
    """Return the model in a file that `save` wrote, in eval mode on the CPU.

    Also reads other `.safetensors`, `.pth` and `.pt` files with our parameter names, for which `config` is needed.

    Raises: InputError if the file cannot be read safely or does not hold such a model; OSError.
    """
    path = Path(path)
    tensors, header = _read_pickle(path) if path.suffix in (".pth", ".pt") else _read_safetensors(path)
    config = _choose_config(path, header, config)
    with torch.device("meta"):
        model = build_model(config)
    try:
        return assign_weights(model, tensors).eval()
    except RuntimeError as error:
        differences = textwrap.shorten(str(error), 400)  # of two families every name differs
        raise InputError(f"{path} must hold a model of the family {config.family!r}: {differences}") from None


def check_path(path: str | Path) -> Path:
    """Return the path of a file to be saved. Raises: ValueError unless it ends with `.safetensors`."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a model is saved as .safetensors, found {path.name!r}; rename it")
    return path


def check_model(model: object) -> None:
    """Raise ValueError unless this is one of our models itself, not a wrapper with other parameter names."""
    if not isinstance(model, LanguageModel):
        raise ValueError(
            f"the model must be a LanguageModel, such as build_model() and load() return, found "
            f"{type(model).__name__}; give the model that is inside a wrapper"
        )


def _choose_config(path: Path, header: str | None, config: ModelConfig | None) -> ModelConfig:
    if header is None:
        if config is None:
            raise InputError(f"{path} must name its model config, found none; give load() the config")
        return config
    try:
        found: ModelConfig = TypeAdapter(AnyConfig).validate_json(header)
    except ValidationError as error:
        problems = textwrap.shorten(str(error), 400)
        raise InputError(f"{path} must describe a model of this release: {problems}") from None
    if config is not None and config != found:
        raise InputError(f"{path} must hold the model of the given config, found {found!r}; leave config out")
    return found


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(HEADER)  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} must be a safetensors file, found something else: {error}") from None


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a seek to a damaged address
            raise
        # Torch's own text advises to read the file with execution allowed; only the name in it is of use.
        code = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"{path} must hold only tensors, which are read without running code, found "
            f"{f'a call of {code[1]}' if code else f'something else ({type(error).__name__})'}; "
            f"write the state_dict again, as .safetensors"
        ) from None
    pairs = found.items() if isinstance(found, dict) else [("the whole", found)]
    for name, value in pairs:
        if not (isinstance(found, dict) and isinstance(name, str) and isinstance(value, Tensor)):
            raise InputError(
                f"{path} must hold a state_dict, a tensor for each parameter name, found {type(value).__name__} "
                f"as {name!r}; write model.state_dict()"
            )
    return found, None
