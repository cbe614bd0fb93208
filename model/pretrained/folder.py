"""A trained model as a Hugging Face folder, and back.

Files: model.safetensors (or shards and an index), config.json, generation_config.json, tokenizer.json,
tokenizer_config.json, and the code of a world model. The same model gives the same bytes.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.export.fields import Fields, read_fields
from model.export.saving import assign_weights
from model.export.tensors import SHARD_BYTES, read_weights, renamed, write_weights
from model.families.registry import build_model
from model.families.world.export.folder_code import write_code
from model.layers.language_model import LanguageModel
from model.pretrained.forms import Form, find_form, form_of_type
from storage.errors import InputError
from storage.formats.tokens import EOT, FIELD, TONE

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def write_folder(
    model: LanguageModel,
    tokenizer_file: Path,
    eot_id: int,
    used_vocab: int,
    folder: Path,
    *,
    tone_names: Sequence[str] = (),
    field_names: Sequence[str] = (),
    has_trained_heads: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the files that transformers loads into an existing folder.

    Ids from `used_vocab` on only pad the embedding; generation settings keep them and the probe tokens from being
    chosen. The names are those of the classes of a world model's heads, left out if a head has another number;
    without `has_trained_heads` the published model refuses to classify.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only writing needs it

    form, tokenizer = find_form(model.config), Tokenizer.from_file(str(tokenizer_file))
    special = {"bos_token_id": eot_id, "eos_token_id": eot_id, "pad_token_id": eot_id}
    config = {**form.write_config(model.config), **special, "dtype": "float32"}
    if form.own_code:
        write_code(folder)
        probes = {"tone_token_id": tokenizer.token_to_id(TONE), "field_token_id": tokenizer.token_to_id(FIELD)}
        names = {"tone_names": list(tone_names), "field_names": list(field_names)}
        heads = {"tone_names": model.config.n_tones, "field_names": model.config.n_fields}
        config["has_trained_heads"] = has_trained_heads and model.config.n_tones > 0
        config |= {name: token for name, token in probes.items() if token is not None}
        config |= {name: known for name, known in names.items() if known and len(known) == heads[name]}
    suppressed = suppressed_ids(tokenizer, used_vocab, model.config.vocab_size)
    write_weights(form.to_tensors(model.state_dict(), model.config), folder, shard_bytes)
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
    form = form_of_type(values.get("model_type"))
    config = form.read_config(Fields(values, str(folder / "config.json")))
    stored = _without_tied_head(read_weights(folder), form, config, folder)
    try:
        found = form.from_tensors(stored, config)
    except (ValueError, KeyError) as error:
        raise _not_its_weights(folder, str(error)) from error
    with torch.device("meta"):
        model = build_model(config)
    return assign_weights(model, _read_all(found, model.state_dict(), folder)).eval()


def suppressed_ids(tokenizer: "Tokenizer", used_vocab: int, vocab_size: int) -> tuple[int, ...]:
    """Return the ids that must never be generated: the probe tokens, and those that only pad the embedding."""
    probes = [tokenizer.token_to_id(token) for token in (TONE, FIELD)]
    return tuple(sorted({*(token for token in probes if token is not None), *range(used_vocab, vocab_size)}))


def _tokenizer_config(tokenizer: "Tokenizer", max_seq_len: int) -> dict[str, Any]:
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
    tensors: Mapping[str, Tensor], form: Form, config: Any, folder: Path
) -> Mapping[str, Tensor]:
    """Leave out the head of a tied model, which a file may hold beside the embedding."""
    head, embedding = form.tied
    if not getattr(config, "tie_embeddings", True) or head not in tensors:
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
