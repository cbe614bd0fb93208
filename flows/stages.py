"""The stages by name. Which of them a recipe runs, and in which order, stands in flows/chain.py."""

from storage.registry import Registry
from tasks.core.stage import Stage

STAGES: Registry[Stage] = Registry(
    "stage",
    "pile_pipeline.stages",
    {
        "download": "tasks.download.stage:STAGE",
        "filter": "tasks.filter.stage:STAGE",
        "dedup": "tasks.dedup.stage:STAGE",
        "train-tokenizer": "tasks.train_tokenizer.stage:STAGE",
        "tokenize": "tasks.tokenize.stage:STAGE",
        "pack": "tasks.pack.stage:STAGE",
        "train": "tasks.train.stage:STAGE",
        "evaluate": "tasks.evaluate.stage:STAGE",
        "publish": "tasks.publish.stage:STAGE",
    },
)


def all_stages() -> tuple[Stage, ...]:
    """Return every stage that can be loaded, ours first."""
    return tuple(stage for _, stage in STAGES.members())
