"""The stages by name. Which of them a recipe runs, and in which order, stands in flows/chain.py."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flows.chain import ALL
from storage.config import Config
from storage.errors import InputError
from storage.member_checks import check_class, check_name, check_version
from storage.registry import Registry
from tasks.core.stage import Stage

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Words with hyphens, so that no two names give the same section of a recipe."""

NOT_SECTIONS = frozenset({ALL, "based_on", "name", "description", "execution", "steps", "section", *dir(Config)})
"""What means something else in a recipe, in its file or as a target."""


def check_stage(name: str, stage: Any) -> None:
    """Raise InputError unless this is a stage of that name, with a section of its own in a recipe."""
    if not isinstance(stage, Stage):
        raise InputError(f"must be a Stage, found {stage!r:.200}")
    check_name(stage.name, name)
    if not NAME.fullmatch(name):
        raise InputError(f"must be named with words of a-z and 0-9 with hyphens between them, found {name!r}")
    if stage.config_field in NOT_SECTIONS:
        raise InputError(f"must have a name that means nothing else in a recipe, found {name!r}")
    check_version(stage.version)
    check_class(stage.config, Config)
    with contextlib.suppress(ValidationError):  # there may be fields without a default
        stage.config()
    if not callable(stage.build):
        raise InputError(f"must have a function in `build`, found {stage.build!r:.200}")
    if not isinstance(stage.inputs, Mapping):
        raise InputError(f"must have its inputs by parameter of `build`, found {stage.inputs!r:.200}")


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
    check_stage,
)


def all_stages() -> tuple[Stage, ...]:
    """Return every stage that can be used, ours first, each under its registered name."""
    return tuple(stage for _, stage in STAGES.members())
