"""Weights on disk as transformers writes them: one safetensors file, or shards with an index.

Tensors are read, converted and written one at a time, so that a model is never held twice.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.export.saving import save_tensors
from storage.errors import CorruptFileError, InputError

SHARD_BYTES = 5 * 10**9
"""Largest weights file, unless a single tensor is larger: what hubs and transformers split at."""

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


class LazyTensors(Mapping[str, Tensor]):
    """A state dict whose tensors are made anew each time one is asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str | None]) -> LazyTensors:
    """Return the same tensors under other names, without those that get the name None."""
    names = {name: rename(name) for name in tensors}
    return LazyTensors({new: partial(tensors.__getitem__, old) for old, new in names.items() if new is not None})


def write_weights(tensors: Mapping[str, Tensor], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write float32 safetensors, in shards with an index if they are larger than `shard_bytes`.

    The same values give the same bytes. Sizes must be known before the files can be named, so every tensor is
    made twice.
    """
    shards: list[list[str]] = [[]]
    total = used = 0
    for name in sorted(tensors):
        size = tensors[name].numel() * torch.float32.itemsize
        if used + size > shard_bytes and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used, total = used + size, total + size
    files = [WEIGHTS]
    if len(shards) > 1:
        files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for file, names in zip(files, shards, strict=True):
        made = {name: tensors[name].detach().to("cpu", torch.float32).contiguous() for name in names}
        save_tensors(made, folder / file)


def read_weights(folder: Path) -> Mapping[str, Tensor]:
    """Return the weights of a folder, read from disk when they are asked for; pickles are read at once.

    Pickled files are read without running code from them. Raises: InputError if there are no weights;
    CorruptFileError if a file is not what its name says.
    """
    for index_name, name, read in (
        (WEIGHTS_INDEX, WEIGHTS, _safetensors),
        (PICKLED_INDEX, PICKLED, _unpickled),
    ):
        if (folder / name).is_file():
            return read(folder / name)
        if (folder / index_name).is_file():
            return _indexed(folder, index_name, read)
    single = sorted(folder.glob("*.pth"))
    if len(single) == 1:
        return _unpickled(single[0])
    raise InputError(
        f"{folder} must hold {WEIGHTS} or {WEIGHTS_INDEX} (or {PICKLED}, or one *.pth file), found "
        f"{', '.join(sorted(path.name for path in folder.iterdir())[:10]) or 'nothing'}; "
        f"give the folder that `save_pretrained` wrote"
    )


def _indexed(folder: Path, index_name: str, read: Callable[[Path], Mapping[str, Tensor]]) -> LazyTensors:
    try:
        places: dict[str, str] = json.loads((folder / index_name).read_bytes())["weight_map"]
        files = {file: folder / Path(file).name for file in sorted(set(places.values()))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{folder / index_name} must have a weight_map, but {error!r}; get the folder again"
        ) from error
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise CorruptFileError(
            f"{folder} must hold the files of its index, lacks {missing[:5]}; get the folder again"
        )
    shards = {file: read(path) for file, path in files.items()}
    lost = [name for name, file in places.items() if name not in shards[file]]
    if lost:
        raise CorruptFileError(
            f"{folder} must hold the tensors of its index, lacks {lost[:5]}; get the folder again"
        )
    return LazyTensors({name: partial(shards[file].__getitem__, name) for name, file in places.items()})


def _safetensors(path: Path) -> LazyTensors:
    try:
        file = safe_open(path, framework="pt", device="cpu")
        names = list(file.keys())
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(f"{path} must be a safetensors file, but {error}; get the folder again") from error
    return LazyTensors({name: partial(file.get_tensor, name) for name in names})


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CorruptFileError(
            f"{path} must be a file of tensors alone, but {error}; get the folder again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path} must hold a state dict, found {type(found).__name__}; save model.state_dict()")
    return found
