"""A trained model on disk: `model.safetensors` with our parameter names, and a small JSON that describes it."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import ModelConfig
from model.families import build_model
from model.language_model import LanguageModel
from storage.config import Config
from storage.errors import DamagedFile, Fault

ALIGNMENT = 64
"""Bytes; torch allocates at multiples of it."""


class TrainedModel(Config):
    """What belongs to a weights file: the `model-config` file of a train artifact."""

    model: ModelConfig
    """The shape of the model."""
    tokenizer_digest: str
    """Content digest of the tokenizer artifact whose ids the model was trained on."""
    steps: int = Field(ge=0)
    """Optimizer steps behind the weights."""
    has_trained_heads: bool = False
    """Whether it has classification heads and its training sequences had probe tokens to train them at."""


def save_weights(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Write parameters as float32 safetensors; the same values give the same bytes.

    Every tensor is written once under its name, so a tied model has no entry for its head.
    """
    tensors = {
        name: state_dict[name].detach().to("cpu", torch.float32).contiguous() for name in sorted(state_dict)
    }
    save_tensors(tensors, path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors as safetensors; the same values give the same bytes.

    `header` is the one entry of the metadata, by default the format, which transformers asks for: safetensors
    writes several in a random order.

    Raises: OSError that names the path, as any other write does; what was written of the file is removed.
    """
    metadata = dict(header or {"format": "pt"})
    assert len(metadata) == 1, f"metadata must be one entry, its order being left to chance, found {metadata}"
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        # It hides the operating system's error in its text: "I/O error: No space left on device (os error 28)".
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        path.unlink(missing_ok=True)
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def save_description(description: TrainedModel, path: Path) -> None:
    """Write the JSON beside the weights."""
    text = json.dumps(description.model_dump(), indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load_description(path: Path) -> TrainedModel:
    """Read the JSON beside the weights.

    Raises: DamagedFile if it does not describe a model of this release.
    """
    try:
        return TrainedModel.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise DamagedFile(f"{path} must describe a trained model, but {error}; train the model again") from error


def load_model(weights_path: Path, config_path: Path, device: str = "cpu") -> LanguageModel:
    """Return a trained model in float32, ready to be used.

    Raises: DamagedFile if the weights cannot be read; Fault if they are not those of the described model.
    """
    config = load_description(config_path).model
    try:
        tensors = load_file(weights_path, device="cpu")
    except (SafetensorError, ValueError) as error:
        raise DamagedFile(
            f"{weights_path} must be a safetensors file, but {error}; train the model again"
        ) from error
    with torch.device("meta"):
        model = build_model(config)
    _check_tensors(model.state_dict(), tensors, weights_path)
    return assign_weights(model, tensors).to(device).eval()


def assign_weights(model: LanguageModel, tensors: Mapping[str, Tensor]) -> LanguageModel:
    """Give a model that was built on the meta device its weights; return it.

    Raises: RuntimeError if the tensors are not those of the model.
    """
    # In a mapped file tensors lie at any address; a copy at an even one is quicker to compute with and gives the
    # same last bits as the model that was saved.
    aligned = {name: t if t.data_ptr() % ALIGNMENT == 0 else t.clone() for name, t in tensors.items()}
    model.load_state_dict(aligned, assign=True)
    for module in model.modules():  # counters are no part of a trained model: they start at zero
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros_like(buffer, device="cpu"))
    return model


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
