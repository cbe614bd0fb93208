"""The model card: README.md of the published folder, with the header that model hubs read."""

from typing import Any, NamedTuple

import yaml

from model.export.architecture import CardText
from storage.artifacts.store import Artifact
from tasks.core.markdown import table
from tasks.publish.config import PublishConfig
from tasks.reports.evaluation import (
    baseline_rows,
    bits_per_byte_rows,
    judged_text,
    method_text,
    sample_settings,
    samples_text,
)
from tasks.reports.world import world_sections

USAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder{options})

# Every text began with the end-of-text token in training.
prompt = tokenizer(tokenizer.bos_token + "Once upon a time", return_tensors="pt")
output = model.generate(**prompt, max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```"""

OWN_CODE = """\
transformers does not know this architecture. `trust_remote_code=True` lets it run the Python files of this folder,
with all that your account may do: read them first. They are the modules that trained the model, with other
imports, and need torch and transformers alone."""

CLASSES_LIMIT = """\
Tone and field were learned from weak labels: the tone from rules on the wording, the field from the collection
that a text came from. The heads can go by punctuation and formats; what they reach stands under Evaluation or was
not measured."""

LIMITS = (
    "It continues text. It was not trained to follow instructions or to hold a conversation.",
    "What it writes can be wrong, offensive or copied from its training text; check it before use.",
    "It knows the kinds of text named under Evaluation as far as its {parameters:,} parameters go.",
    "Only what stands under Evaluation was measured. Bias, memorization and safety were not.",
)


class Published(NamedTuple):
    """What the card says of how the model is published."""

    card: CardText
    """What its architecture says."""
    own_code: bool
    """Whether the folder brings its code."""
    closing_limits: tuple[str, ...]
    active_parameters: int | None
    """Parameters that work on one token; None if all but tables do."""


def model_card(
    config: PublishConfig,
    metrics: dict[str, Any],
    *,
    model: Artifact,
    tokenizer: Artifact,
    evaluation: Artifact,
    published: Published,
) -> str:
    """Return README.md. It holds no date, time or host, so that the same inputs give the same bytes."""
    shape = metrics["model"]
    trained_heads = metrics.get("heads") is not None  # null: there are heads, but untrained
    sections = [
        header(config, published.card),
        f"# {config.name}",
        *([config.description] if config.description else []),
        f"{published.card.sentence} with {shape['parameters']:,} parameters in float32{_active(published)}, "
        f"trained for {shape['steps']:,} steps with pile-pipeline.",
        "## Use",
        *usage(published, trained_heads=trained_heads),
        "## Model",
        table(architecture_rows(shape)),
        "## Training",
        table(training_rows(model)),
        "## Evaluation",
        f"Bits per byte on documents of the held-out split `{metrics['config']['split']}`.",
        table(bits_per_byte_rows(metrics)),
        table(baseline_rows(metrics)),
        judged_text(metrics),
        method_text(metrics),
        "The numbers, with sizes and losses, are in `metrics.json`.",
        *world_sections(metrics),
        "## Samples",
        sample_settings(metrics),
        samples_text(metrics, fence=True),
        "## Limits",
        limits(published, shape, trained_heads=trained_heads),
        "## Where it comes from",
        "Each artifact is named by stage and key; its manifest in the store records configuration, inputs, code "
        f"commit and library versions. `pile lineage {model.ref}` follows them back to the source files.",
        table(lineage_rows(model, tokenizer, evaluation)),
    ]
    return "\n\n".join(sections) + "\n"


def usage(published: Published, *, trained_heads: bool) -> list[str]:
    """Return the paragraphs on how to load and use the model."""
    options = ", trust_remote_code=True" if published.own_code else ""
    paragraphs = [USAGE.format(options=options)]
    if published.own_code:
        paragraphs.append(OWN_CODE)
    if trained_heads and published.card.classify:
        paragraphs.append(published.card.classify)
    return paragraphs


def limits(published: Published, model: dict[str, Any], *, trained_heads: bool) -> str:
    """Return what the model cannot do, as a list."""
    lines = [*LIMITS[:2], *published.card.limits, *LIMITS[2:], *published.closing_limits]
    if trained_heads:
        lines.append(CLASSES_LIMIT)
    return "\n".join(f"- {line}".replace("\n", "\n  ") for line in lines).format(**model)


def header(config: PublishConfig, card: CardText) -> str:
    """Return the YAML header. Source: the metadata of model cards, huggingface.co/docs/hub/model-cards."""
    fields: dict[str, Any] = {"license": config.license.lower()}
    if config.languages:
        fields["language"] = list(config.languages)
    fields |= {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*card.tags, "pile-pipeline"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def architecture_rows(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the shape of the model, a row per field."""
    return [{"field": name, "value": _plain(value)} for name, value in model.items() if name != "steps"]


def training_rows(model: Artifact) -> list[dict[str, Any]]:
    """Return what the training counted and its settings, a row per value; the shape stands under Model."""
    manifest = model.manifest
    settings = {name: value for name, value in manifest.config.items() if name != "model"}
    return [{"field": name, "value": _plain(value)} for name, value in {**manifest.counts, **settings}.items()]


def lineage_rows(model: Artifact, tokenizer: Artifact, evaluation: Artifact) -> list[dict[str, Any]]:
    """Return the inputs of this folder by their names, and what they were made from by its content, each once.

    Their keys are part of the key of this folder, and so is all content behind them; names behind them are not.
    """
    inputs = (model, tokenizer, evaluation)
    rows = [{"artifact": artifact.ref, "content digest": artifact.content_digest} for artifact in inputs]
    named = {(artifact.manifest.stage, artifact.content_digest) for artifact in inputs}
    behind = {
        (reference.stage, reference.content_digest): None
        for artifact in inputs
        for _, reference in sorted(artifact.manifest.inputs.items())
    }
    return rows + [
        {"artifact": stage, "content digest": digest} for stage, digest in behind if (stage, digest) not in named
    ]


def _active(published: Published) -> str:
    """Tell how many parameters work on a token, if a router chooses them."""
    return f", of which {published.active_parameters:,} work on a token" if published.active_parameters else ""


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
