"""Recipes on the text that every Python installation carries, and on files of one's own."""

from flows.recipes.schema import Recipe, make_recipe
from model.families.presets import preset_shape
from model.training.config import TrainConfig
from storage.config import changed
from storage.sources.registry import source_config
from tasks.download.config import DownloadConfig
from tasks.evaluate.config import EvaluateConfig
from tasks.labels.field import FieldName
from tasks.pack.config import PackConfig
from tasks.publish.config import PublishConfig
from tasks.train_tokenizer.config import TrainTokenizerConfig

SOFTWARE = (
    "Python Packages (source)",
    "Python Standard Library (source)",
    "Python Docstrings",
    "Package Descriptions",
)
LICENCES = "Licences"
"""The subsets of the Python installation's text."""


def demo() -> Recipe:
    """Everything on two CPU cores in minutes, from the text that every Python installation carries."""
    return make_recipe(
        name="demo",
        description="library source, docstrings and licences to a 2M-parameter model; CPU, minutes, no network",
        download=DownloadConfig(
            source=source_config(
                "python-environment", text_bytes=20_000_000, val_fraction=0.02, test_fraction=0.03
            ),
            shard_bytes=2_000_000,
        ),
        train_tokenizer=TrainTokenizerConfig(vocab_size=4096, reserved_tokens=8),
        pack=PackConfig(sequence_length=256),
        train=TrainConfig(max_steps=400, warmup_steps=40, micro_batch_size=8, checkpoint_every=50, eval_every=100),
        evaluate=EvaluateConfig(prompts=("def ", "class Error(", "Return the ")),
        publish=PublishConfig(
            name="pile-pipeline-demo",
            description="A demonstration of the pipeline; too small and too little trained to be useful.",
        ),
    )


def own_files() -> Recipe:
    """Text files of one's own, split by hash into training and held-out documents."""
    return make_recipe(
        name="own-files",
        description="your text files, of most kinds, in sizes that fit them: pile run own-files FOLDER",
        download=DownloadConfig(source=source_config("files", patterns=("corpus/*",))),
    )


def world_1m() -> Recipe:
    """The smallest world model on the demo's text, with probe tokens for its heads; CPU, minutes."""
    base = demo()
    fields: dict[str, FieldName | None] = {**dict.fromkeys(SOFTWARE, "software"), LICENCES: "law"}
    return changed(
        base,
        name="world-1m",
        description="the demo's text to a world model of the smallest size, heads included; CPU, minutes",
        pack=PackConfig(sequence_length=256, probe_tokens=True, field_map=fields),
        train=changed(base.section(TrainConfig), model=preset_shape("world-1m")),
        publish=PublishConfig(name="world-1m-demo"),
    )
