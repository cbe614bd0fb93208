"""A recipe in small: every stage with all its settings, on about a hundredth of the text, in minutes."""

from collections.abc import Iterator
from typing import Any

from flows.recipes.schema import Recipe
from flows.recipes.sizing import Corpus, has_gpu, vocabulary
from model.families import estimate as paper
from model.families.presets import PRESETS
from model.training.config import TrainConfig, model_config_for
from storage.sources.base import SplitFields
from storage.sources.files import FilesConfig
from storage.wording import size
from tasks.download.config import DownloadConfig
from tasks.pack.config import PackConfig
from tasks.train_tokenizer.config import TrainTokenizerConfig

SHARE = 0.01
"""Part of the text that is taken."""

HELD_OUT = 0.05
"""Share of a sample that each held-out split takes at least, unless a recipe has it empty."""

STEPS = 10
"""Of training: enough to see that the loss falls, to evaluate, and to write a checkpoint and go on."""

SAMPLE_BYTES = 4_000_000
"""What a sample is sure to hold, if the corpus does; see tasks/download/sample.py."""

CPU_FLOPS, GPU_FLOPS = 2e12, 1e15
"""What the training may take: about a minute of two cores, or of one GPU."""


def smoke_changes(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Return the fields to replace, and in words what was made smaller than the recipe says."""
    sections = {type(section) for _, section in recipe}
    changes: dict[str, Any] = {}
    said = ["all of the text, which is little"]
    if not _is_small(recipe):
        changes["download.sample_share"] = SHARE
        said = [f"{SHARE:.0%} of the text, at least {size(SAMPLE_BYTES)} if there is as much"]
        _hold_out_more(recipe, changes, said)
        if TrainTokenizerConfig in sections:
            _narrow_vocabulary(recipe.section(TrainTokenizerConfig), changes, said)
    if TrainConfig in sections:
        _shorten_training(recipe, changes, said)
    return changes, said


def _is_small(recipe: Recipe) -> bool:
    """Tell whether a sample would hold the whole corpus, as far as that is known before it is fetched."""
    source = recipe.section(DownloadConfig).source
    if isinstance(source, FilesConfig):
        return Corpus.measured(source.patterns).text_bytes <= SAMPLE_BYTES
    return False


def _hold_out_more(recipe: Recipe, changes: dict[str, Any], said: list[str]) -> None:
    """Let no split be empty only for the sample: the whole text gives each a hundred times as much."""
    source = recipe.section(DownloadConfig).source
    if isinstance(source, SplitFields):
        shares = {"val_fraction": source.val_fraction, "test_fraction": source.test_fraction}
        for name, share in shares.items():
            if 0 < share < HELD_OUT:
                changes[f"download.source.{name}"] = HELD_OUT
                said.append(f"{name} {HELD_OUT} instead of {share}")


def _narrow_vocabulary(config: TrainTokenizerConfig, changes: dict[str, Any], said: list[str]) -> None:
    most = vocabulary(SAMPLE_BYTES)
    if config.vocab_size > most:
        changes["train_tokenizer.vocab_size"] = most
        said.append(f"a vocabulary of {most:,} instead of {config.vocab_size:,}, for which a sample is too small")


def _shorten_training(recipe: Recipe, changes: dict[str, Any], said: list[str]) -> None:
    config, length = recipe.section(TrainConfig), recipe.section(PackConfig).sequence_length
    steps = min(config.max_steps, STEPS)
    rows = min(config.global_batch_size, 2 * config.micro_batch_size * recipe.execution.processes)
    changes |= {f"train.{name}": value for name, value in _short(config, steps)}
    said.append(f"{steps} steps of training instead of {config.max_steps:,}")
    vocab_size = changes.get("train_tokenizer.vocab_size", recipe.section(TrainTokenizerConfig).vocab_size)
    model = model_config_for(config.model, vocab_size, length)
    room = GPU_FLOPS if has_gpu() and recipe.execution.device != "cpu" else CPU_FLOPS
    if steps * rows * length * paper.training_flops_per_token(model, length) > room:
        name = min(
            (name for name, preset in PRESETS.items() if preset.family == model.family),
            key=lambda name: paper.count_parameters(PRESETS[name]),
        )
        rows = 2 * recipe.execution.processes
        changes |= {"train.model": name, "train.micro_batch_size": 1}
        said.append(
            f"the model {name} of the same family instead of {_parameters(model)}, which does not fit here"
        )
    if rows != config.global_batch_size:
        changes["train.global_batch_size"] = rows
        said.append(f"batches of {rows} sequences instead of {config.global_batch_size}")


def _short(config: TrainConfig, steps: int) -> Iterator[tuple[str, Any]]:
    yield "max_steps", steps
    yield "warmup_steps", min(config.warmup_steps, steps // 4)
    yield "checkpoint_every", max(1, steps // 2)
    yield "eval_every", max(1, steps // 2)
    yield "log_every", max(1, steps // 4)


def _parameters(model: Any) -> str:
    return f"{paper.count_parameters(model) / 1e6:,.0f}M parameters"
