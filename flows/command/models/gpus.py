"""The GPUs that `pile estimate` knows, from their data sheets. Light: the help text lists them."""

from typing import NamedTuple

from storage.errors import InputError


class Gpu(NamedTuple):
    """What a data sheet says about a GPU."""

    memory_bytes: float
    flops: float
    """Dense matrix products in bfloat16, per second; data sheets print twice that, for sparse ones."""


GPUS = {
    "h100": Gpu(80e9, 989e12),  # NVIDIA H100 data sheet, SXM: 80 GB, 1,979 TFLOPS with sparsity
    "h200": Gpu(141e9, 989e12),  # NVIDIA H200 data sheet, SXM: 141 GB, 1,979 TFLOPS with sparsity
    "a100": Gpu(80e9, 312e12),  # NVIDIA A100 80GB data sheet, SXM: 312 TFLOPS dense
}


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its name. Raises: InputError if its data sheet is not here."""
    if name not in GPUS:
        raise InputError(f"--gpu must be one of {', '.join(GPUS)}, found {name!r}")
    return GPUS[name]
