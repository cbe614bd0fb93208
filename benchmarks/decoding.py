"""What the cache saves in decoding, and how our decoding compares with that of transformers, in CPU time."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from model.families.presets import PRESETS
from model.families.registry import build_model
from model.generation.generate import generate
from model.layers.language_model import LanguageModel

REPEATS = 5
"""Measurements of each side; they alternate, so that what slows the machine meets both."""


def cache_ratio(preset: str = "gpt2-tiny", length: int = 512, new_tokens: int = 16) -> dict[str, Any]:
    """Return how many times longer a token takes without cache, at the end of `length` tokens."""
    config = PRESETS[preset]
    model = build_model(type(config).model_validate({**dict(config), "max_seq_len": 2 * length})).eval()
    prompt = _prompt(config.vocab_size, length - new_tokens)
    medians = _alternating(
        with_cache=lambda: _decode_seconds(model, prompt, new_tokens, use_cache=True),
        without_cache=lambda: _decode_seconds(model, prompt, new_tokens, use_cache=False),
    )
    return _result(medians, "without_cache", "with_cache", preset=preset, length=length, new_tokens=new_tokens)


def decode_ratio_vs_transformers(
    preset: str = "gpt2-124m", prompt_tokens: int = 32, new_tokens: int = 64
) -> dict[str, Any]:
    """Return how many times longer transformers takes for a cached greedy continuation of one prompt."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - seconds, and only this needs it

    config = PRESETS[preset]
    model = build_model(config).eval()
    shape = {"n_layer": config.n_layers, "n_head": config.n_heads, "n_embd": config.d_model}
    theirs = GPT2LMHeadModel(
        GPT2Config(**shape, vocab_size=config.vocab_size, n_positions=config.max_seq_len)
    ).eval()
    prompt = _prompt(config.vocab_size, prompt_tokens)
    fixed = {"do_sample": False, "max_new_tokens": new_tokens, "eos_token_id": None, "pad_token_id": 0}
    generate_theirs: Callable[..., Any] = theirs.generate
    medians = _alternating(
        ours=lambda: _cpu_seconds(lambda: generate(model, prompt, new_tokens)),
        transformers=lambda: _cpu_seconds(
            lambda: generate_theirs(prompt, attention_mask=torch.ones_like(prompt), **fixed)
        ),
    )
    return _result(
        medians, "transformers", "ours", preset=preset, prompt_tokens=prompt_tokens, new_tokens=new_tokens
    )


def _decode_seconds(model: LanguageModel, prompt: torch.Tensor, new_tokens: int, use_cache: bool) -> float:
    """Return the CPU time of the tokens after the first, which with a cache pays for the prompt."""
    first = _cpu_seconds(lambda: generate(model, prompt, 1, use_cache=use_cache))
    return _cpu_seconds(lambda: generate(model, prompt, 1 + new_tokens, use_cache=use_cache)) - first


def _alternating(**sides: Callable[[], float]) -> dict[str, float]:
    for measure in sides.values():  # once to warm up
        measure()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, measure in sides.items():
            seconds[name].append(measure())
    return {name: statistics.median(values) for name, values in seconds.items()}


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _prompt(vocab_size: int, length: int) -> torch.Tensor:
    return torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(0))


def _result(medians: dict[str, float], slow: str, quick: str, **settings: Any) -> dict[str, Any]:
    per_token = {
        f"{name}_cpu_ms_per_token": round(1000 * seconds / settings["new_tokens"], 3)
        for name, seconds in medians.items()
    }
    ratio = round(medians[slow] / medians[quick], 2)
    return {"ratio": ratio, **per_token, **settings, "threads": torch.get_num_threads(), "repeats": REPEATS}
