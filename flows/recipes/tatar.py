"""Recipes for Tatar."""

from flows.recipes.schema import Recipe, make_recipe
from model.families.presets import preset_shape
from model.training.config import TrainConfig
from storage.sources.registry import source_config
from tasks.download.config import DownloadConfig
from tasks.evaluate.config import EvaluateConfig
from tasks.pack.config import PackConfig
from tasks.publish.config import PublishConfig
from tasks.train_tokenizer.config import TrainTokenizerConfig


def tatar_23m() -> Recipe:
    """A small model of a language with little text, read many times: dropout, and a vocabulary of its own."""
    return make_recipe(
        name="tatar-23m",
        description="Leipzig corpora or other text to a 23M-parameter Tatar model; set download.source.patterns",
        download=DownloadConfig(source=source_config("files", patterns=("tatar/*",))),
        train_tokenizer=TrainTokenizerConfig(vocab_size=8192),
        pack=PackConfig(sequence_length=256),
        train=TrainConfig(
            model=preset_shape("tatar-23m"), max_steps=20_000, warmup_steps=500, global_batch_size=64,
            micro_batch_size=16, learning_rate=6e-4, checkpoint_every=1000, eval_every=500, eval_sequences=256,
        ),
        evaluate=EvaluateConfig(prompts=("", "Татарстан ", "Бүген ")),
        publish=PublishConfig(name="tatar-23m", languages=("tt",), description="A language model of Tatar."),
    )  # fmt: skip
