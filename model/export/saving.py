"""Tensors written as safetensors, and given to a model."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from model.layers.language_model import LanguageModel

ALIGNMENT = 64
"""Bytes; torch allocates at multiples of it."""


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
