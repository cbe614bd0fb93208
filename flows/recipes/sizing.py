"""Sizes for text of one's own: numbers that follow from how much there is and from what trains on it.

They are worked out where a command is typed and go on as plain overrides: what runs, and the key of every stage,
holds the numbers themselves and depends on no machine.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.sources.local_files import find_files
from storage.sources.readers.chunks import COMPRESSIONS

PATTERNS = "download.source.patterns"

UNPACKED = {".parquet": 3, ".arrow": 1, ".feather": 1, ".zip": 3, ".tgz": 3}
"""About how much more text there is than bytes in a file, by the end of its name."""

COMPRESSED = 3
"""The same for compressed text."""

BYTES_PER_TOKEN = 3.5
"""About, of a byte-level tokenizer trained on the text that it reads."""

VOCABULARIES = ((1e6, 1024), (1e7, 4096), (1e8, 8192), (1e9, 16384))
"""Up to so many bytes of text, so many tokens: each must occur often enough to be learned."""

LARGEST_VOCABULARY = 32768

HELD_OUT_BYTES = 200_000
"""Text that a held-out split should have: with less the loss tells of its documents rather than of the model."""

PASSES = 4
"""Times that small text is read: up to four passes teach nearly as much as new text (arXiv:2305.16264)."""

FEW_FILES = 100
"""With fewer text files than this a paragraph is a document: else nothing is left to hold out."""


@dataclass(frozen=True)
class Corpus:
    """Files of one's own, as far as their names and sizes tell."""

    text_bytes: int
    files: int
    text_files: int

    @classmethod
    def measured(cls, patterns: Sequence[str]) -> "Corpus":
        """Look at files without reading them. Raises: InputError for a pattern that means none."""
        found = find_files(patterns).files
        text_bytes = sum(path.stat().st_size * _unpacked(name.lower()) for name, path in found.items())
        texts = sum(name.lower().removesuffix(_compression(name.lower())).endswith(".txt") for name in found)
        return cls(text_bytes, len(found), texts)


def own_sizes(corpus: Corpus, given: Mapping[str, Any], *, gpu: bool) -> dict[str, Any]:
    """Return the fields of a recipe that fit a corpus, but for those that are `given`."""
    tokens = corpus.text_bytes / BYTES_PER_TOKEN
    sequence, batch, most_steps = (1024, 32, 20_000) if gpu else (256, 8, 1000)
    wanted = min(most_steps, max(50, round(PASSES * tokens / (sequence * batch))))
    steps = given.get("train.max_steps", wanted)
    steps = steps if isinstance(steps, int) and steps > 0 else wanted  # what it must be is said with the recipe
    held_out = round(min(0.1, max(0.01, HELD_OUT_BYTES / max(1, corpus.text_bytes))), 3)
    sizes: dict[str, Any] = {
        "download.source.val_fraction": held_out,
        "download.source.test_fraction": held_out,
        "train_tokenizer.vocab_size": vocabulary(corpus.text_bytes),
        "pack.sequence_length": sequence,
        "train.model": model(corpus.text_bytes, gpu=gpu),
        "train.max_steps": steps,
        "train.warmup_steps": steps // 10,
        "train.global_batch_size": batch,
        "train.micro_batch_size": batch,
        "train.checkpoint_every": max(1, min(100, steps // 4)),
        "train.eval_every": max(1, steps // 4),
    }
    if corpus.text_files == corpus.files < FEW_FILES:
        sizes["download.source.text_files"] = "paragraph"
    return {
        field: value
        for field, value in sizes.items()
        if not any(name == field or name.startswith(f"{field}.") for name in given)
    }


def vocabulary(text_bytes: int) -> int:
    """Return the size of a vocabulary for so much text."""
    return next((size for most, size in VOCABULARIES if text_bytes <= most), LARGEST_VOCABULARY)


def model(text_bytes: int, *, gpu: bool) -> dict[str, Any]:
    """Return the shape of a model for so much text: 2M parameters and the embedding, on a GPU up to 85M."""
    if not gpu or text_bytes < 1e7:
        width, layers = 192, 4
    elif text_bytes < 1e9:
        width, layers = 384, 6
    else:
        width, layers = 768, 12
    heads = width // 32
    fields = {
        "n_layers": layers,
        "d_model": width,
        "n_heads": heads,
        "n_kv_heads": heads // 3,
        "d_ff": width * 8 // 3,
    }
    return {"family": "rope", **fields}


def has_gpu() -> bool:
    """Tell whether this machine has an NVIDIA GPU, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    return any(Path("/dev").glob("nvidia[0-9]*")) and visible != "" and not visible.startswith("-")


def _unpacked(name: str) -> int:
    if _compression(name):
        return COMPRESSED
    return next((factor for end, factor in UNPACKED.items() if name.endswith(end)), 1)


def _compression(name: str) -> str:
    return next((end for end in COMPRESSIONS if name.endswith(end)), "")
