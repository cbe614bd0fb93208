"""Recipes on a mirror in The Pile's layout."""

from flows.recipes.schema import Recipe, make_recipe
from model.families.presets import find_preset, preset_shape
from model.training.config import TrainConfig
from storage.config import changed
from storage.sources.registry import source_config
from tasks.download.config import DownloadConfig
from tasks.pack.config import PackConfig
from tasks.publish.config import PublishConfig
from tasks.train_tokenizer.config import TrainTokenizerConfig


def pile() -> Recipe:
    """A mirror in The Pile's layout, local or over HTTP."""
    return make_recipe(
        name="pile",
        description="a mirror with train/NN.jsonl.zst, val, test and SHA256SUMS.txt; set download.source.url",
        download=DownloadConfig(source=source_config("mirror", url="pile")),
        train_tokenizer=TrainTokenizerConfig(vocab_size=32768),
        pack=PackConfig(sequence_length=1024),
    )


def gpt2_124m() -> Recipe:
    """GPT-2's smallest size on a mirror of The Pile: 10 billion tokens in batches of half a million."""
    return changed(
        pile(),
        name="gpt2-124m",
        description="a mirror in The Pile's layout to GPT-2 with 124M parameters; set download.source.url",
        train_tokenizer=TrainTokenizerConfig(vocab_size=50_257),
        train=TrainConfig(
            model=preset_shape("gpt2-124m"), max_steps=19_073, warmup_steps=700, global_batch_size=512,
            micro_batch_size=64, learning_rate=6e-4, checkpoint_every=1000, eval_every=250, eval_sequences=512,
        ),
        publish=PublishConfig(name="gpt2-124m-pile", languages=("en",)),
    )  # fmt: skip


def world(size: str, tokens: float, steps_of: int, learning_rate: float) -> Recipe:
    """A larger world model on a mirror of The Pile: `tokens` in all, `steps_of` sequences per update."""
    preset = find_preset(f"world-{size}")
    steps = round(tokens / (steps_of * preset.max_seq_len))
    return changed(
        pile(),
        name=f"world-{size}",
        description=f"a mirror in The Pile's layout to a world model of {size.upper()} parameters",
        train_tokenizer=TrainTokenizerConfig(vocab_size=preset.vocab_size),
        pack=PackConfig(sequence_length=preset.max_seq_len, probe_tokens=True),
        train=TrainConfig(
            model=preset_shape(f"world-{size}"), max_steps=steps, warmup_steps=min(2000, steps // 10),
            global_batch_size=steps_of, micro_batch_size=1, learning_rate=learning_rate, checkpoint_every=1000,
            eval_every=500, eval_sequences=256,
        ),
        publish=PublishConfig(name=f"world-{size}-pile", languages=("en",)),
    )  # fmt: skip
