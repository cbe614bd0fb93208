"""Compiles loops over numbers with numba.

Without numba they run as they stand, with the same results, some hundred times slower. Whole numbers are 64 bits
and wrap around; numba would make a float of an unsigned and a signed one, so constants are unsigned too.
"""

import functools
import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

try:
    import numba
except ImportError as missing:
    numba = None  # type: ignore[assignment]
    log.warning("filter and dedup take 400 times as long without numba, which should be installed: %s", missing)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
"""Characters: code points, in bytes if all are ASCII."""
Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Hashes32 = npt.NDArray[np.uint32]

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Base of polynomial hashes; odd. Long words of one hash can be made up: what decides by itself about a document
compares letters too."""
MIXER = np.uint64(0xD6E8FEB86659FD93)
HALF, NEARLY_HALF = np.uint64(32), np.uint64(29)


def compiled(*parameters: str) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that compiles a function for parameters of these kinds, at once and in all variants.

    Kinds are those of `_variants`. numba keeps what it compiled on disk, numbered, without a lock: were variants
    compiled as texts demand them, two processes could take each other's. The name has a digest of the files that
    the function is made from, since numba would also take what was kept for another version if it was killed in
    the middle of replacing it.
    """

    def compile_now(function: FunctionT) -> FunctionT:
        if numba is None or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
            return _wrapping_around(function)
        variants = _variants(parameters)
        function.__qualname__ += f"_{_digest(Path(function.__code__.co_filename).parent)}"
        try:
            return cast(FunctionT, numba.njit(variants, cache=True, nogil=True)(function))
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):  # nothing can be kept, or it is damaged
            return cast(FunctionT, numba.njit(variants, nogil=True)(function))

    return compile_now


def _variants(parameters: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the types of the parameters: once, or once for bytes and once for code points.

    What a kind with `fixed` before it names is only read: it may be a file that is mapped into memory.
    """
    types = numba.types
    elements = {"bytes": types.uint8, "points": types.uint32, "places": types.int64, "hashes": types.uint64}
    elements |= {"shares": types.float32, "ints": types.int32}
    kinds: dict[str, Any] = {name: types.Array(element, 1, "C") for name, element in elements.items()}
    kinds |= {f"fixed {name}": types.Array(kind, 1, "C", readonly=True) for name, kind in elements.items()}
    kinds |= {"number": types.int64, "hash": types.uint64, "share": types.float64}
    kinds["table"] = types.Array(types.uint32, 2, "C")
    kinds["hash table"] = types.Array(types.uint64, 2, "C")
    variants = []
    for code in (types.uint8, types.uint32):
        kinds["letters"] = types.Array(code, 1, "C")
        kinds["codes"] = types.Array(code, 1, "C", readonly=True)
        variants.append(tuple(kinds[name] for name in parameters))
    return list(dict.fromkeys(variants))


@cache
def _digest(folder: Path) -> str:
    # A loop may call those of another file of its folder, of which its own file says nothing.
    files = [Path(__file__), *sorted(folder.glob("*.py"))]
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content + numba.__version__.encode()).hexdigest()[:12]


def _wrapping_around(function: FunctionT) -> FunctionT:
    @functools.wraps(function)
    def silent(*arguments: Any) -> Any:
        with np.errstate(over="ignore"):
            return function(*arguments)

    return cast(FunctionT, silent)


@compiled("hash")
def mixed(value: np.uint64) -> np.uint64:
    """Return a value whose bits all depend on all bits."""
    value ^= value >> HALF
    value *= MIXER
    return value ^ (value >> NEARLY_HALF)
