"""The architectures that world models are published as: Qwen3-Next where it can express them, else our own."""

from typing import Any

from model.export.architecture import ROTARY_LIMIT, Architecture, CardText, HeadLabels, Tensors
from model.export.fields import Fields
from model.export.tensors import LazyTensors, renamed
from model.families.world.config import WorldConfig
from model.families.world.export.folder_code import code_files
from model.families.world.export.qwen3_next import Qwen3Next

PREFIX = "model."

LABELS = ("has_trained_heads", "tone_token_id", "field_token_id", "tone_names", "field_names")
"""Fields of config.json that say what the heads know; they change nothing that the model computes."""

CLASSIFY = """\
The two heads read the written tone and the field of a text, at probe tokens that `classify` adds:

```python
text = tokenizer(tokenizer.bos_token + "A text.", return_tensors="pt")
tone, field = model.classify(text.input_ids)
print(model.config.tone_names[tone[0].argmax()], model.config.field_names[field[0].argmax()])
```"""

CONTEXT_LIMIT = """\
The context layers score how important and how urgent each token is. Whether that helps was not measured here."""


class World(Architecture[WorldConfig]):
    """Our own class, whose code lies in the folder."""

    name = "WorldForCausalLM"
    model_type = "pile_world"
    tied = ("model.lm_head.weight", "model.embed_tokens.weight")
    card = CardText(
        "A mixture-of-experts hybrid of Gated DeltaNet and gated attention (pile-pipeline's own architecture)",
        ("pile_world", "moe", "custom_code"),
        (
            ROTARY_LIMIT,
            "Only transformers runs it, with the code in this folder. Batches must be padded on the left; beam "
            "search needs `use_cache=False`.",
        ),
        CLASSIFY,
    )

    def is_tied(self, config: WorldConfig) -> bool:
        """Tell whether the head is the embedding."""
        return config.tie_embeddings

    def to_tensors(self, tensors: Tensors, config: WorldConfig) -> LazyTensors:
        """Rename our parameters and the routers' bias to those of the published class."""
        return renamed(tensors, lambda name: PREFIX + name)

    def from_tensors(self, tensors: Tensors, config: WorldConfig) -> LazyTensors:
        """Rename the parameters of the published class to ours."""
        return renamed(tensors, lambda name: name.removeprefix(PREFIX))

    def write_config(self, config: WorldConfig) -> dict[str, Any]:
        """Return our own fields, and where the code lies."""
        fields = {name: value for name, value in config.model_dump().items() if name != "family"}
        return {
            **fields,
            "architectures": [self.name],
            "auto_map": {
                "AutoConfig": "configuration_world.WorldConfig",
                "AutoModelForCausalLM": "modeling_world.WorldForCausalLM",
            },
            "model_type": self.model_type,
        }

    def read_config(self, fields: Fields) -> WorldConfig:
        """Return our config of a published world model."""
        for name in (*LABELS, "tie_word_embeddings"):
            fields.take(name, None)
        ours = {name: fields.take(name) for name in WorldConfig.model_fields if name != "family"}
        return fields.config(WorldConfig, **ours)

    def code_files(self) -> dict[str, str]:
        """Return the source of each file of code."""
        return code_files()

    def label_fields(self, config: WorldConfig, labels: HeadLabels) -> dict[str, Any]:
        """Return probe tokens and names of classes; names are left out if the head has another number."""
        classes = config.classes()
        return {
            "has_trained_heads": labels.trained and bool(classes),
            **{f"{kind}_token_id": token for kind, token in labels.token_ids.items()},
            **{
                f"{kind}_names": list(names)
                for kind, names in labels.names.items()
                if names and len(names) == classes.get(kind)
            },
        }

    def has_trained_heads(self, values: Any) -> bool:
        """Tell what the folder says; one that does not say so is older than the field."""
        return values.get("has_trained_heads") is True

    def closing_limits(self, config: WorldConfig) -> tuple[str, ...]:
        """Return what was not measured of the context layer."""
        return (CONTEXT_LIMIT,) if config.context_rank else ()


ARCHITECTURES: tuple[Architecture[WorldConfig], ...] = (Qwen3Next(), World())
