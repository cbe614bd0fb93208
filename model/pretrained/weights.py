"""A trained model on disk: `model.safetensors` with our parameter names, and a small JSON that describes it."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.export.saving import assign_weights
from model.families.registry import AnyConfig, build_model
from model.layers.language_model import LanguageModel
from storage.config import Config
from storage.errors import CorruptFileError, Fault

WEIGHTS, MODEL_CONFIG = "weights", "model-config"
"""Roles of the two files of a trained model in an artifact."""


class ModelDescription(Config):
    """What belongs to a weights file: the MODEL_CONFIG file of a train artifact."""

    model: AnyConfig
    """The shape of the model."""
    tokenizer_digest: str
    """Content digest of the tokenizer artifact whose ids the model was trained on."""
    steps: int = Field(ge=0)
    """Optimizer steps behind the weights."""
    has_trained_heads: bool = False
    """Whether it has classification heads and its training sequences had probe tokens to train them at."""


def save_description(description: ModelDescription, path: Path) -> None:
    """Write the JSON beside the weights."""
    text = json.dumps(description.model_dump(), indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load_description(path: Path) -> ModelDescription:
    """Read the JSON beside the weights.

    Raises: CorruptFileError if it does not describe a model of this release.
    """
    try:
        return ModelDescription.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise CorruptFileError(
            f"{path} must describe a trained model, but {error}; train the model again"
        ) from error


def load_model(weights_path: Path, config_path: Path, device: str = "cpu") -> LanguageModel:
    """Return a trained model in float32, ready to be used.

    Raises: CorruptFileError if the weights cannot be read; Fault if they are not those of the described model.
    """
    config = load_description(config_path).model
    try:
        tensors = load_file(weights_path, device="cpu")
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(
            f"{weights_path} must be a safetensors file, but {error}; train the model again"
        ) from error
    with torch.device("meta"):
        model = build_model(config)
    _check_tensors(model.state_dict(), tensors, weights_path)
    return assign_weights(model, tensors).to(device).eval()


def _check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not known" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        tensor, shape = found[name], tuple(wanted[name].shape)
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            problems.append(f"{name} must be float32 {shape}, is {tensor.dtype} {tuple(tensor.shape)}")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} holds values that are not finite numbers")
    if problems:
        raise Fault(
            f"{path} must hold the weights of its model description, found {len(problems)} differences: "
            f"{'; '.join(sorted(problems)[:5])}; train the model again"
        )
