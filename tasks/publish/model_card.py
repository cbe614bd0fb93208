"""The model card: README.md of the published folder, with the header that model hubs read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from storage.artifacts.store import Artifact
from tasks.reports.evaluation import bits_per_byte_rows, method_text, sample_settings, samples_text
from tasks.reports.markdown import table
from tasks.reports.world import world_sections

if TYPE_CHECKING:
    from tasks.publish.config import PublishConfig

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

CLASSIFY = """\
The two heads read the written tone and the field of a text, at probe tokens that `classify` adds:

```python
text = tokenizer(tokenizer.bos_token + "A text.", return_tensors="pt")
tone, field = model.classify(text.input_ids)
print(model.config.tone_names[tone[0].argmax()], model.config.field_names[field[0].argmax()])
```"""


@dataclass(frozen=True)
class Architecture:
    """What a model card says of an architecture."""

    sentence: str
    """Its name, as in: this is ..."""
    tags: tuple[str, ...]
    """What hubs find it by."""
    limits: tuple[str, ...]
    """What those who use it must know."""
    own_code: bool = False
    """Whether the folder brings its code."""


ROTARY_LIMIT = "It was trained on texts of at most {max_seq_len:,} tokens; it reads on beyond that, but worse."

ARCHITECTURES = {
    "GPT2LMHeadModel": Architecture(
        "A decoder-only transformer (GPT-2 architecture)",
        ("gpt2",),
        ("It reads at most {max_seq_len:,} tokens of context.",),
    ),
    "LlamaForCausalLM": Architecture(
        "A decoder-only transformer (Llama architecture)", ("llama",), (ROTARY_LIMIT,)
    ),
    "GPTNeoXForCausalLM": Architecture(
        "A decoder-only transformer (GPT-NeoX architecture, without parallel residuals)",
        ("gpt_neox",),
        (ROTARY_LIMIT,),
    ),
    "Qwen3NextForCausalLM": Architecture(
        "A mixture-of-experts hybrid of Gated DeltaNet and gated attention (Qwen3-Next architecture)",
        ("qwen3_next", "moe"),
        (
            ROTARY_LIMIT,
            "The factor on the sum of the routed experts is multiplied into their last projection, for the "
            "architecture has none.",
            "It was checked with transformers; other engines for Qwen3-Next were not tried at this size.",
        ),
    ),
    "WorldForCausalLM": Architecture(
        "A mixture-of-experts hybrid of Gated DeltaNet and gated attention (pile-pipeline's own architecture)",
        ("pile_world", "moe", "custom_code"),
        (
            ROTARY_LIMIT,
            "Only transformers runs it, with the code in this folder. Batches must be padded on the left; beam "
            "search needs `use_cache=False`.",
        ),
        own_code=True,
    ),
}
"""The classes of transformers that models are published as."""

CLASSES_LIMIT = """\
Tone and field were learned from weak labels: the tone from rules on the wording, the field from the collection
that a text came from. The heads can go by punctuation and formats; what they reach stands under Evaluation or was
not measured."""

CONTEXT_LIMIT = """\
The context layers score how important and how urgent each token is. Whether that helps was not measured here."""

LIMITS = (
    "It continues text. It was not trained to follow instructions or to hold a conversation.",
    "What it writes can be wrong, offensive or copied from its training text; check it before use.",
    "It knows the kinds of text named under Evaluation as far as its {parameters:,} parameters go.",
    "Only what stands under Evaluation was measured. Bias, memorization and safety were not.",
)


def model_card(
    config: "PublishConfig",
    metrics: dict[str, Any],
    *,
    model: Artifact,
    tokenizer: Artifact,
    evaluation: Artifact,
    architecture: str,
    active_parameters: int,
) -> str:
    """Return README.md. It holds no date, time or host, so that the same inputs give the same bytes.

    `architecture` is the class of transformers; `active_parameters` are those that work on one token.
    """
    shape, known = metrics["model"], ARCHITECTURES[architecture]
    trained_heads = metrics.get("heads") is not None  # null: there are heads, but untrained
    sections = [
        header(config, known),
        f"# {config.name}",
        *([config.description] if config.description else []),
        f"{known.sentence} with {shape['parameters']:,} parameters in float32{_active(shape, active_parameters)}, "
        f"trained for {shape['steps']:,} steps with pile-pipeline.",
        "## Use",
        *usage(known, trained_heads=trained_heads),
        "## Model",
        table(architecture_rows(shape)),
        "## Training",
        table(training_rows(model)),
        "## Evaluation",
        f"Bits per byte on documents of the held-out split `{metrics['config']['split']}`.",
        table(bits_per_byte_rows(metrics)),
        method_text(metrics),
        "The numbers, with sizes and losses, are in `metrics.json`.",
        *world_sections(metrics),
        "## Samples",
        sample_settings(metrics),
        samples_text(metrics, fence=True),
        "## Limits",
        limits(known, shape, trained_heads=trained_heads),
        "## Where it comes from",
        "Each artifact is named by stage and key; its manifest in the store records configuration, inputs, code "
        f"commit and library versions. `pile lineage {model.ref}` follows them back to the source files.",
        table(lineage_rows(model, tokenizer, evaluation)),
    ]
    return "\n\n".join(sections) + "\n"


def usage(architecture: Architecture, *, trained_heads: bool) -> list[str]:
    """Return the paragraphs on how to load and use the model."""
    options = ", trust_remote_code=True" if architecture.own_code else ""
    paragraphs = [USAGE.format(options=options)]
    if architecture.own_code:
        paragraphs.append(OWN_CODE)
    if trained_heads:
        paragraphs.append(CLASSIFY)
    return paragraphs


def limits(architecture: Architecture, model: dict[str, Any], *, trained_heads: bool) -> str:
    """Return what the model cannot do, as a list."""
    lines = [*LIMITS[:2], *architecture.limits, *LIMITS[2:]]
    if model.get("context_rank"):
        lines.append(CONTEXT_LIMIT)
    if trained_heads:
        lines.append(CLASSES_LIMIT)
    return "\n".join(f"- {line}".replace("\n", "\n  ") for line in lines).format(**model)


def header(config: "PublishConfig", architecture: Architecture) -> str:
    """Return the YAML header. Source: the metadata of model cards, huggingface.co/docs/hub/model-cards."""
    fields: dict[str, Any] = {"license": config.license.lower()}
    if config.languages:
        fields["language"] = list(config.languages)
    fields |= {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*architecture.tags, "pile-pipeline"],
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


def _active(model: dict[str, Any], active_parameters: int) -> str:
    """Tell how many parameters work on a token, if a router chooses them."""
    return f", of which {active_parameters:,} work on a token" if "num_experts" in model else ""


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
