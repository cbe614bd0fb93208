"""The torch device of this process."""

import os
from typing import Literal

import torch

from storage.errors import InputError


def choose_device(wanted: Literal["auto", "cpu", "mps", "cuda"]) -> torch.device:
    """Return the device to work on: `auto` takes a GPU if there is one, torchrun's processes one each.

    Raises: InputError if this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name in available if available[name]) if wanted == "auto" else wanted
    if not available[kind]:
        raise InputError(
            f"device {kind!r} must be usable by torch {torch.__version__} on this machine, but it is not; "
            f"choose 'auto' or 'cpu', or install the torch build for it"
        )
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)


def gpu_memory(device: torch.device) -> tuple[str, int] | None:
    """Return the name of a GPU and its memory in bytes, None for a device that shares the machine's memory."""
    if device.type != "cuda":
        return None
    found = torch.cuda.get_device_properties(device)
    return found.name, found.total_memory
