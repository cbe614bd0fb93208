"""A trained model as a Hugging Face folder, and back.

Files: model.safetensors (or shards and an index), config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, and the code of an architecture that transformers does not know. The same model gives the
same bytes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.export.architecture import Architecture, HeadLabels
from model.export.fields import Fields, read_fields
from model.export.saving import assign_weights
from model.export.tensors import SHARD_BYTES, read_weights, renamed, write_weights
from model.families.base import ModelConfig
from model.families.registry import build_model
from model.layers.language_model import LanguageModel
from model.pretrained.architectures import architecture_for, architecture_of_type
from storage.errors import InputError
from storage.formats.probes import PROBE_KINDS
from storage.formats.tokens import EOT, FIELD, TONE


def write_folder(
    model: LanguageModel,
    tokenizer_file: Path,
    eot_id: int,
    used_vocab: int,
    folder: Path,
    *,
    class_names: Mapping[str, Sequence[str]] | None = None,
    has_trained_heads: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the files that transformers loads into an existing folder.

    Ids from `used_vocab` on only pad the embedding; generation settings keep them and the probe tokens from being
    chosen. `class_names` are those of the classes of the model's heads by kind, left out if a head has another
    number; without `has_trained_heads` the published model refuses to classify.
    """
    architecture, tokenizer = architecture_for(model.config), Tokenizer.from_file(str(tokenizer_file))
    special = {"bos_token_id": eot_id, "eos_token_id": eot_id, "pad_token_id": eot_id}
    labels = HeadLabels(has_trained_heads, _probe_ids(tokenizer), class_names or {})
    config = {**architecture.write_config(model.config), **special, "dtype": "float32"}
    config |= architecture.label_fields(model.config, labels)
    for name, source in architecture.code_files().items():
        (folder / name).write_text(source, encoding="utf-8")
    suppressed = suppressed_ids(tokenizer, used_vocab, model.config.vocab_size)
    write_weights(architecture.to_tensors(model.state_dict(), model.config), folder, shard_bytes)
    shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        special | ({"suppress_tokens": list(suppressed)} if suppressed else {}),
    )
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, model.config.max_seq_len))


def load_published(folder: str | Path) -> LanguageModel:
    """Return the model of a folder that this package or transformers wrote, in float32, ready to be used.

    Its dropout is 0 whatever config.json says: that is a matter of training, and families differ in where it acts.

    Raises: InputError if no family can compute that model exactly; CorruptFileError for unreadable files.
    """
    folder = Path(folder)
    values = read_fields(folder / "config.json")
    architecture = architecture_of_type(values.get("model_type"))
    config = architecture.read_config(Fields(values, str(folder / "config.json")))
    stored = _without_tied_head(read_weights(folder), architecture, config, folder)
    try:
        found = architecture.from_tensors(stored, config)
    except (ValueError, KeyError) as error:
        raise _not_its_weights(folder, str(error)) from error
    with torch.device("meta"):
        model = build_model(config)
    return assign_weights(model, _read_all(found, model.state_dict(), folder)).eval()


def suppressed_ids(tokenizer: Tokenizer, used_vocab: int, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that must never be generated: the probe tokens, and those that only pad the embedding."""
    return tuple(sorted({*_probe_ids(tokenizer).values(), *range(used_vocab, vocab_size)}))


def has_trained_heads(folder: str | Path) -> bool:
    """Tell whether a published model has classification heads that were trained."""
    values = read_fields(Path(folder) / "config.json")
    return architecture_of_type(values.get("model_type")).has_trained_heads(values)


def _probe_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the probe tokens by kind, as far as there are any."""
    found = {kind: tokenizer.token_to_id(token) for kind, token in zip(PROBE_KINDS, (TONE, FIELD), strict=True)}
    return {kind: token for kind, token in found.items() if token is not None}


def _tokenizer_config(tokenizer: Tokenizer, max_seq_len: int) -> dict[str, Any]:
    probes = [token for token in (TONE, FIELD) if tokenizer.token_to_id(token) is not None]
    return {
        "bos_token": EOT,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOT,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_seq_len,
        "pad_token": EOT,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({"additional_special_tokens": probes} if probes else {}),
    }


def _without_tied_head(
    tensors: Mapping[str, Tensor], architecture: Architecture[Any], config: ModelConfig, folder: Path
) -> Mapping[str, Tensor]:
    """Leave out the head of a tied model, which a file may hold beside the embedding."""
    head, embedding = architecture.tied
    if not architecture.is_tied(config) or head not in tensors:
        return tensors
    name = embedding if embedding in tensors else embedding.partition(".")[2]
    if name not in tensors or not torch.equal(tensors[head], tensors[name]):
        raise _not_its_weights(folder, f"{head} must equal {embedding}, for config.json ties the two")
    return renamed(tensors, lambda name: None if name == head else name)


def _read_all(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return all tensors in float32, each read once, or say what does not fit."""
    problems = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    problems += [f"{name} is not known" for name in found.keys() - wanted.keys()]
    tensors = {}
    for name in sorted(wanted.keys() & found.keys()):
        tensor = found[name]
        if tensor.shape != wanted[name].shape or not tensor.is_floating_point():
            shape = tuple(wanted[name].shape)
            problems.append(f"{name} must be numbers {shape}, is {tensor.dtype} {tuple(tensor.shape)}")
        tensors[name] = tensor.to(torch.float32).contiguous()
    if problems:
        raise _not_its_weights(folder, "; ".join(sorted(problems)[:5]))
    return tensors


def _not_its_weights(folder: Path, found: str) -> InputError:
    return InputError(
        f"the weights in {folder} must be those of its config.json, but {found}; give the folder of one complete "
        f"model"
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
