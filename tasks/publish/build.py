"""Publish: weights + tokenizer + evaluation -> a Hugging Face folder with a model card.

Input   model       the final weights of the train stage
        tokenizer   tokenizer.json, the one the model was trained with
        evaluation  metrics.json of the evaluate stage, for this very model
Output  part `huggingface`: model.safetensors (or shards and an index), config.json, generation_config.json,
        tokenizer.json, tokenizer_config.json, metrics.json, README.md, and the code of our own classes (*.py)
Rerun   a committed folder is kept and checked again.

Nothing is committed before transformers has loaded the folder, from disk only, and computed with it what the
trained model computes. The folder has no dates and no names of machines: the same inputs give the same bytes.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import logging

from model.families.base import ModelConfig
from model.families.estimate import count_active_parameters, formulas_of
from model.pretrained.architectures import architecture_for
from model.pretrained.check import FolderCheck, check_folder
from model.pretrained.folder import write_folder
from model.pretrained.trained_model import fixed_threads, open_trained
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.errors import InputError
from storage.formats.tokens import TOKENIZER
from tasks.core.context import StageContext
from tasks.labels.classes import CLASSES
from tasks.publish.config import FOLDER, PublishConfig
from tasks.publish.model_card import Published, model_card
from tasks.reports.evaluation import METRICS

CHECKED_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Сәләм, дөнья! Съешь же ещё этих мягких французских булок.",
    "👩‍🚀 e\u0301 ﬁ 漢字 עברית \u00a0 naïve",
    "def f(x):\n\treturn x ** 2  # 1,234.5\r\n\n",
    " leading and trailing ",
)
"""Given to both tokenizers: scripts, joined emoji, combining marks, code and the spaces that are often lost."""


def publish_model(
    config: PublishConfig, model: Artifact, tokenizer: Artifact, evaluation: Artifact, *, context: StageContext
) -> list[Part]:
    """Write the folder, check it with transformers, commit it.

    Raises: InputError if the inputs do not belong together; Fault if the folder is not the trained model.
    """
    metrics_file = evaluation.open(evaluation.file(METRICS))
    metrics = json.loads(metrics_file.read_bytes())
    _check_evaluation(metrics, model, tokenizer, evaluation)
    folder = context.writer.scratch() / FOLDER
    folder.mkdir()
    part = context.finished_parts([FOLDER]).get(FOLDER)
    with fixed_threads(context.execution.threads):
        trained = open_trained(model, tokenizer)
        if part is None:
            vocabulary = tokenizer.open(tokenizer.file(TOKENIZER))
            write_folder(
                trained.network,
                vocabulary,
                trained.eot_id,
                trained.used_vocab,
                folder,
                class_names=CLASSES,
                has_trained_heads=trained.description.has_trained_heads,
            )
            shutil.copyfile(metrics_file, folder / "metrics.json")
            card = model_card(
                config,
                metrics,
                model=model,
                tokenizer=tokenizer,
                evaluation=evaluation,
                published=describe(trained.description.model),
            )
            (folder / "README.md").write_text(card, encoding="utf-8")
        else:
            _copy_part(part, context, folder)
        with _quiet_transformers():
            check = check_folder(
                folder, trained.network, trained.encoder, CHECKED_TEXTS, trained.eot_id, trained.used_vocab
            )
    if part is None:
        part = context.writer.commit_folder(FOLDER, folder, counts={"parameters": check.parameters})
    context.table("Checked with transformers", _check_rows(check))
    context.table("Published files", [{"file": file.role, "bytes": file.bytes} for file in part.files])
    return [part]


def describe(config: ModelConfig) -> Published:
    """Return what the model card says of how a model is published."""
    architecture, routed = architecture_for(config), formulas_of(config).unrouted_parameters() > 0
    return Published(
        architecture.card,
        bool(architecture.code_files()),
        architecture.closing_limits(config),
        count_active_parameters(config) if routed else None,
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep warnings of transformers from the console; what they could mean is checked, and an error if so.

    It warns that a checked text is longer than a small model reads, though nothing reads it but the tokenizer.
    """
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_evaluation(metrics: dict[str, Any], model: Artifact, tokenizer: Artifact, evaluation: Artifact) -> None:
    for name, artifact in (("model", model), ("tokenizer", tokenizer)):
        measured = metrics["inputs"][name]
        if measured != artifact.content_digest:
            raise InputError(
                f"{evaluation.ref} must have measured {artifact.ref}, whose content digest is "
                f"{artifact.content_digest[:16]}, found that it measured {measured[:16]}; run `pile run` so that "
                f"both come from one run"
            )


def _copy_part(part: Part, context: StageContext, folder: Path) -> None:
    for file in part.files:
        shutil.copyfile(context.writer.open(file), folder / file.role)


def _check_rows(check: FolderCheck) -> list[dict[str, Any]]:
    return [
        {"check": "parameters loaded, none missing, none unexpected", "result": check.parameters},
        {"check": "largest difference of logits", "result": f"{check.logit_difference:.1e}"},
        {"check": "the same at most, by rounding", "result": f"{check.logit_tolerance:.1e}"},
        {"check": "texts with the same token ids", "result": check.texts},
        {"check": "greedily generated tokens that are the same", "result": check.generated_tokens},
    ]
