"""The stages in the order in which they run; every stage reads artifacts of earlier ones only."""

from storage.errors import InputError
from tasks.core.stage import Stage
from tasks.dedup import stage as dedup_corpus
from tasks.download import stage as download_corpus
from tasks.evaluate import stage as evaluate_model
from tasks.filter import stage as filter_corpus
from tasks.pack import stage as pack_tokens
from tasks.publish import stage as publish_model
from tasks.tokenize import stage as tokenize_corpus
from tasks.train import stage as train_model
from tasks.train_tokenizer import stage as train_tokenizer

STAGES: tuple[Stage, ...] = (
    download_corpus.STAGE,
    filter_corpus.STAGE,
    dedup_corpus.STAGE,
    train_tokenizer.STAGE,
    tokenize_corpus.STAGE,
    pack_tokens.STAGE,
    train_model.STAGE,
    evaluate_model.STAGE,
    publish_model.STAGE,
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)
LAST = STAGE_NAMES[-1]


def needed_for(target: str) -> tuple[Stage, ...]:
    """Return the target stage and everything it is made from, in running order.

    Raises: InputError if no stage has that name.
    """
    wanted = {checked_stage(target).name}
    for stage in reversed(STAGES):
        if stage.name in wanted:
            wanted.update(stage.inputs.values())
    return tuple(stage for stage in STAGES if stage.name in wanted)


def checked_stage(name: str) -> Stage:
    """Return the stage of a name. Raises: InputError that lists the names there are."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise InputError(f"a stage must be one of {', '.join(STAGE_NAMES)}, found {name!r}")
