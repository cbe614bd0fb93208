"""The fields of another library's config.json, read so that none can change the model unseen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from storage.config import Config
from storage.errors import InputError

ConfigT = TypeVar("ConfigT", bound=Config)

REQUIRED = object()

HARMLESS = frozenset(
    {
        "_name_or_path", "architectures", "attention_dropout", "attn_pdrop", "auto_map", "bos_token_id",
        "chunk_size_feed_forward", "classifier_dropout", "decoder_start_token_id", "dtype", "embd_pdrop",
        "eos_token_id", "finetuning_task", "gradient_checkpointing", "hidden_dropout", "id2label",
        "initializer_range", "is_decoder", "label2id", "model_type", "n_ctx", "num_labels", "output_attentions",
        "output_hidden_states", "output_past", "output_router_logits", "pad_token_id",
        "prefix", "problem_type", "reorder_and_upcast_attn", "resid_pdrop", "return_dict",
        "router_aux_loss_coef", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
        "summary_type", "summary_use_proj", "task_specific_params", "torch_dtype", "torchscript",
        "transformers_version", "use_cache",
    }
)  # fmt: skip
"""Fields that do not change what a loaded model computes in float32: names, training, generation, other heads."""


class Fields:
    """A config.json of which every field must be asked for or be HARMLESS; null counts as left out."""

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._what = what
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str, default: Any = REQUIRED) -> Any:
        """Return a field, or what transformers takes when it is left out."""
        self._asked.add(name)
        value = self._values.get(name, default)
        if value is REQUIRED:
            raise InputError(f"{self._what} must have the field {name}; give the folder of a complete model")
        return value

    def take_size(self, name: str, default: Any = REQUIRED) -> int:
        """Return a field that must be a number from 1 on."""
        value = self.take(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{self._what} must have a number from 1 on as {name}, found {value!r}; correct it")
        return value

    def expect(self, name: str, allowed: Any, default: Any) -> None:
        """Refuse the model unless a field, or what transformers takes without it, is the allowed value."""
        value = self.take(name, default)
        if value != allowed or isinstance(value, bool) != isinstance(allowed, bool):
            raise self.refused(name, value, repr(allowed))

    def refused(self, name: str, found: Any, allowed: str) -> InputError:
        """Return the error for a field whose value this family cannot express."""
        return InputError(
            f"{self._what} must have {name}={allowed}, found {found!r}: this family cannot compute that model; "
            f"choose another one"
        )

    def config(self, kind: type[ConfigT], **values: Any) -> ConfigT:
        """Return our config when all fields have been dealt with.

        Raises: InputError for a field that nobody asked for, and for values that make no model.
        """
        unknown = sorted(self._values.keys() - self._asked - HARMLESS)
        if unknown:
            raise InputError(
                f"{self._what} must have fields whose meaning is known, found {', '.join(unknown)}; remove them "
                f"if they do not change what the model computes, or choose another model"
            )
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{self._what} must describe a model that can be built, but {error}") from error


def read_fields(path: Path) -> dict[str, Any]:
    """Return the content of a config.json. Raises: InputError if there is none."""
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} must hold a config.json, found none; give a folder that `save_pretrained` wrote"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} must be JSON, but {error}; get the folder again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a JSON object, found {type(values).__name__}; get the folder again")
    return values


def take_rotary(
    fields: Fields,
    default_theta: float = 10_000.0,
    default_fraction: float = 1.0,
    old_names: tuple[str, str] = ("rope_theta", "partial_rotary_factor"),
) -> tuple[float, float]:
    """Return base and rotated fraction of plain rotary positions.

    transformers 5 keeps them in `rope_parameters`, transformers 4 in fields named `old_names`; a folder may have
    both, which must agree. Raises: InputError for any other kind of rotary positions.
    """
    theta_name, fraction_name = old_names
    parameters, scaling = (fields.take(name, {}) for name in ("rope_parameters", "rope_scaling"))
    if not isinstance(parameters, dict):
        raise fields.refused("rope_parameters", parameters, "{...}, an object")
    parameters = dict(parameters)
    kind = parameters.pop("rope_type", parameters.pop("type", "default"))
    parameters.pop("type", None)
    if kind != "default" or (scaling and scaling != {"rope_type": "default"} and scaling != {"type": "default"}):
        raise fields.refused("rope_type", scaling or kind, "'default'")
    found = []
    for new, old, default in (
        ("rope_theta", theta_name, default_theta),
        ("partial_rotary_factor", fraction_name, default_fraction),
    ):
        outside = fields.take(old, None)
        inside = parameters.pop(new, None)
        if None not in (outside, inside) and outside != inside:
            raise fields.refused(old, outside, f"rope_parameters[{new!r}]={inside}")
        value = next(value for value in (inside, outside, default) if value is not None)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise fields.refused(old, value, "a number")
        found.append(float(value))
    if parameters:
        raise fields.refused("rope_parameters", parameters, "rope_type, rope_theta and partial_rotary_factor only")
    return found[0], found[1]
