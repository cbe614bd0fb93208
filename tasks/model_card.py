"""The model card: README.md of the published folder, with the header that model hubs read."""

from typing import TYPE_CHECKING, Any

import yaml

from storage.store import Artifact
from tasks.evaluation_report import bits_per_byte_rows, method_text, sample_settings, samples_text
from tasks.markdown import table

if TYPE_CHECKING:
    from tasks.publish_model import PublishConfig

USAGE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)

# Every text began with the end-of-text token in training.
prompt = tokenizer(tokenizer.bos_token + "Once upon a time", return_tensors="pt")
output = model.generate(**prompt, max_new_tokens=100, do_sample=True, temperature=0.8, top_p=0.95)
print(tokenizer.decode(output[0], skip_special_tokens=True))
```"""

LIMITS = """\
- It continues text. It was not trained to follow instructions or to hold a conversation.
- What it writes can be wrong, offensive or copied from its training text; check it before use.
- It reads at most {max_seq_len:,} tokens of context, and knows the kinds of text named under Evaluation as far as
  its {parameters:,} parameters go.
- Only what stands under Evaluation was measured. Bias, memorization and safety were not."""


def model_card(
    config: "PublishConfig",
    metrics: dict[str, Any],
    *,
    model: Artifact,
    tokenizer: Artifact,
    evaluation: Artifact,
) -> str:
    """Return README.md. It holds no date, time or host, so that the same inputs give the same bytes."""
    shape = metrics["model"]
    sections = [
        header(config),
        f"# {config.name}",
        *([config.description] if config.description else []),
        f"A decoder-only transformer (Llama architecture) with {shape['parameters']:,} parameters in float32, "
        f"trained for {shape['steps']:,} steps with pile-pipeline.",
        "## Use",
        USAGE,
        "## Model",
        table(architecture_rows(shape)),
        "## Training",
        table(training_rows(model)),
        "## Evaluation",
        f"Bits per byte on documents of the held-out split `{metrics['config']['split']}`.",
        table(bits_per_byte_rows(metrics)),
        method_text(metrics),
        "The numbers, with sizes and losses, are in `metrics.json`.",
        "## Samples",
        sample_settings(metrics),
        samples_text(metrics, fence=True),
        "## Limits",
        LIMITS.format(**shape),
        "## Where it comes from",
        "Each artifact is named by stage and key; its manifest in the store records configuration, inputs, code "
        f"commit and library versions. `pile lineage {model.ref}` follows them back to the source files.",
        table(lineage_rows(model, tokenizer, evaluation)),
    ]
    return "\n\n".join(sections) + "\n"


def header(config: "PublishConfig") -> str:
    """Return the YAML header. Source: the metadata of model cards, huggingface.co/docs/hub/model-cards."""
    fields: dict[str, Any] = {"license": config.license.lower()}
    if config.languages:
        fields["language"] = list(config.languages)
    fields |= {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llama", "pile-pipeline"],
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
    """Return the inputs of this folder and what they were made from, each artifact once."""
    rows = {
        artifact.ref: {"artifact": artifact.ref, "content digest": artifact.content_digest}
        for artifact in (model, tokenizer, evaluation)
    }
    for artifact in (model, tokenizer, evaluation):
        for _, reference in sorted(artifact.manifest.inputs.items()):
            name = f"{reference.stage}/{reference.key}"
            rows.setdefault(name, {"artifact": name, "content digest": reference.content_digest})
    return list(rows.values())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
