"""The stages in the order in which they run; every stage reads artifacts of earlier ones only."""

from storage.errors import InputError
from tasks import (
    dedup_corpus,
    download_corpus,
    evaluate_model,
    filter_corpus,
    pack_tokens,
    publish_model,
    tokenize_corpus,
    train_model,
    train_tokenizer,
)
from tasks.stage import Stage

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
