"""The verb that says on paper what a model is and what its training takes, before anything is built or paid."""

import argparse
import math
import textwrap
from dataclasses import dataclass
from typing import Any

from flows.command.models.gpus import find_gpu
from flows.command.models.this_machine import machine_lines, machine_numbers, measured, needed_bytes
from flows.command.output import print_json
from flows.recipes.reading import find_recipe, is_recipe_file
from flows.recipes.registry import RECIPES
from flows.tables import text_table
from model.families import estimate as paper
from model.families.base import ModelConfig
from model.families.formulas import Formulas
from model.families.presets import PRESETS
from model.families.registry import family_of
from model.training.config import TrainConfig, model_config_for
from storage.errors import InputError
from storage.suggestions import did_you_mean
from storage.wording import counted
from tasks.pack.config import PackConfig
from tasks.train_tokenizer.config import TrainTokenizerConfig

PILE_TOKENS = 300e9
"""About what The Pile holds, read once: the tokens of a preset, which has no recipe to say."""

GPU, GPUS_WANTED = "h100", 64
"""The GPUs of a table that nobody chose: for a model that does not fit here."""

STATES_SHARE = 0.8
"""Part of a GPU's memory that training states may take, a guess; activations and gathered layers need the rest."""


@dataclass(frozen=True)
class Training:
    """The training that is estimated."""

    name: str
    source: str
    """`preset` or `recipe`."""
    config: ModelConfig
    sequence_length: int
    tokens: float
    settings: TrainConfig
    """How it is trained: by its recipe, or as by default."""
    device: str = "auto"


def estimate(options: argparse.Namespace) -> int:
    """Print parameters, FLOPs, memory and time of a preset or of a recipe's model."""
    _check(options)
    planned = _find_training(options)
    if options.layers:
        rows = family_of(planned.config).layer_table(planned.config)
        print_json(rows) if options.json else print(text_table(rows))
        return 0
    numbers = {**_model_numbers(planned), **_training_numbers(planned, options)}
    if options.gpu is None and options.gpus is None:
        numbers["here"] = _numbers_here(planned, options)
    if options.json:
        print_json(numbers)
        return 0
    _print_tables(numbers, paper.formulas_of(planned.config))
    if "here" not in numbers or not numbers["here"]["fits"] or options.price is not None:
        _print_gpus(numbers)
    return 0


def _check(options: argparse.Namespace) -> None:
    find_gpu(options.gpu or GPU)
    for option, value, holds, must in (
        ("--tokens", options.tokens, options.tokens is None or options.tokens > 0, "a number above 0, as 300e9"),
        ("--gpus", options.gpus, options.gpus is None or options.gpus >= 1, "a number of GPUs from 1 on"),
        ("--mfu", options.mfu, 0 < options.mfu <= 1, "above 0 and at most 1, as 0.4 for 40 % of the peak"),
        ("--price", options.price, options.price is None or options.price >= 0, "a price per GPU hour, 0 or more"),
        (
            "--sequence-length", options.sequence_length,
            options.sequence_length is None or options.sequence_length >= 1, "a number of tokens from 1 on",
        ),
    ):  # fmt: skip
        if not holds or (value is not None and not math.isfinite(value)):
            raise InputError(f"{option} must be {must}, found {value}")


def _find_training(options: argparse.Namespace) -> Training:
    """Return the named training. A recipe comes before a preset of its name, for it says the tokens, too."""
    name, tokens, training, device = options.model, PILE_TOKENS, TrainConfig(), "auto"
    if name in RECIPES or is_recipe_file(name):
        recipe = find_recipe(name)
        pack, training = recipe.section(PackConfig), recipe.section(TrainConfig)
        length = options.sequence_length or pack.sequence_length
        config = model_config_for(
            training.model, recipe.section(TrainTokenizerConfig).vocab_size, pack.sequence_length
        )
        source, device = "recipe", recipe.execution.device
        tokens = float(training.max_steps * training.global_batch_size * length)
    elif name in PRESETS:
        config = PRESETS[name]
        length = options.sequence_length or config.max_seq_len
        source = "preset"
    else:
        raise InputError(
            f"a model must be a preset ({', '.join(PRESETS)}), a recipe ({', '.join(RECIPES)}) or a .yaml or "
            f".json file with a recipe, found {name!r}{did_you_mean(name, (*PRESETS, *RECIPES))}"
        )
    if config.learned_positions and length > config.max_seq_len:
        raise InputError(
            f"--sequence-length must be at most {config.max_seq_len}, the positions that {name} has learned, "
            f"found {length}"
        )
    return Training(name, source, config, length, options.tokens or tokens, training, device)


def _model_numbers(planned: Training) -> dict[str, Any]:
    config, length = planned.config, planned.sequence_length
    return {
        "model": planned.name,
        "source": planned.source,
        "family": config.family,
        "layers": paper.count_table_layers(config),
        **paper.formulas_of(config).layer_groups(),
        "vocab_size": config.vocab_size,
        "sequence_length": length,
        "parameters": paper.count_parameters(config),
        "active_parameters": paper.count_active_parameters(config),
        "parameters_by_kind": paper.parameter_split(config),
        "flops_per_token": paper.training_flops_per_token(config, length),
        "flops_per_token_by_kind": paper.training_flops_split(config, length),
        "weight_bytes": paper.weight_bytes(config),
        "kv_cache_bytes_per_token": paper.kv_cache_bytes_per_token(config),
        "recurrent_state_bytes": paper.recurrent_state_bytes(config),
        "layer_input_bytes_per_sequence": paper.layer_input_bytes(config, length),
    }


def _numbers_here(planned: Training, options: argparse.Namespace) -> dict[str, Any]:
    machine = machine_numbers(planned.device)
    need = needed_bytes(planned.config, planned.sequence_length, planned.settings.micro_batch_size)
    flops = planned.tokens * paper.training_flops_per_token(planned.config, planned.sequence_length)
    is_recipe = planned.source == "recipe" and options.tokens is None and options.sequence_length is None
    return {
        "machine": machine,
        "needed_bytes": need,
        "fits": sum(need.values()) <= machine["memory_bytes"],
        "tokens": planned.tokens,
        "flops": flops,
        "measured": measured(options.store, planned.settings, planned.tokens) if is_recipe else None,
    }


def _training_numbers(planned: Training, options: argparse.Namespace) -> dict[str, Any]:
    config, name, gpus = planned.config, options.gpu or GPU, options.gpus or GPUS_WANTED
    gpu = find_gpu(name)
    room = STATES_SHARE * gpu.memory_bytes
    states = [
        {
            "states": kind,
            "bytes_per_parameter": sum(parts),
            "bytes": paper.training_state_bytes(config, kind),
            "bytes_per_gpu": paper.training_state_bytes(config, kind, gpus),
            "fits": paper.training_state_bytes(config, kind, gpus) <= room,
            "min_gpus": paper.min_ranks(config, room, kind),
        }
        for kind, parts in paper.TRAINING_STATES.items()
    ]
    flops = planned.tokens * paper.training_flops_per_token(config, planned.sequence_length)
    gpu_hours = flops / (gpu.flops * options.mfu) / 3600
    training = {
        "gpu": name,
        "gpus": gpus,
        "gpu_memory_bytes": gpu.memory_bytes,
        "mfu": options.mfu,
        "tokens": planned.tokens,
        "flops": flops,
        "gpu_hours": gpu_hours,
        "days": gpu_hours / gpus / 24,
    }
    if options.price is not None:
        training["cost"] = gpu_hours * options.price
    return {"training_states": states, "training": training}


def _print_tables(numbers: dict[str, Any], formulas: Formulas) -> None:
    total, active = numbers["parameters"], numbers["active_parameters"]
    layers = f"{numbers['layers']} layers{_groups(formulas)}"
    print(
        f"{numbers['model']} ({numbers['source']}): {numbers['family']} family, {layers}, vocabulary "
        f"{numbers['vocab_size']:,}, sequences of {numbers['sequence_length']:,} tokens\n"
    )
    kinds = {**numbers["parameters_by_kind"], "total": total, "active per token": active}
    print(_counts("parameters", kinds, total))
    flops = {**numbers["flops_per_token_by_kind"], "total": numbers["flops_per_token"]}
    print("\n" + _counts("FLOPs per trained token", flops, numbers["flops_per_token"]))
    if "here" in numbers:
        print()
        for line in machine_lines(numbers["here"]):
            print(textwrap.fill(line, 80, subsequent_indent="  "))
    print("\n" + text_table(_memory_rows(numbers)))


def _print_gpus(numbers: dict[str, Any]) -> None:
    training = numbers["training"]
    print(f"\ntraining states, fully sharded over {training['gpus']:,} {training['gpu'].upper()}")
    print(text_table([_states_row(row) for row in numbers["training_states"]]))
    print(
        f"They may take {STATES_SHARE:.0%} of the {training['gpu_memory_bytes'] / 1e9:.0f} GB of a GPU; the rest "
        f"is for activations and gathered layers."
    )
    print("\n" + text_table(_time_rows(training)))


def _groups(formulas: Formulas) -> str:
    """Tell how the layers are counted, as ` (12 superblocks x 8 + 5)`; empty if one by one."""
    return "".join(
        f" ({counted(number, name)} x {formulas.layers // number} + {formulas.table_layers() - formulas.layers})"
        for name, number in formulas.layer_groups().items()
    )


def _counts(title: str, counts: dict[str, int], total: int) -> str:
    rows = [
        {title: name.replace("_", " "), "count": count, "share %": round(100 * count / total, 2)}
        for name, count in counts.items()
        if count
    ]
    return text_table(rows)


def _states_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": row["states"],
        "bytes/parameter": row["bytes_per_parameter"],
        "GB in all": row["bytes"] / 1e9,
        "GB per GPU": row["bytes_per_gpu"] / 1e9,
        "fits": "yes" if row["fits"] else "no",
        "GPUs at least": row["min_gpus"],
    }


def _memory_rows(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {
        "weights in bfloat16": numbers["weight_bytes"],
        "keys and values per token, bfloat16": numbers["kv_cache_bytes_per_token"],
        "recurrent state per sequence": numbers["recurrent_state_bytes"],
        "inputs of the layers, per sequence in training": numbers["layer_input_bytes_per_sequence"],
    }
    return [{"memory": name, "bytes": count} for name, count in rows.items() if count]


def _time_rows(training: dict[str, Any]) -> list[dict[str, Any]]:
    rows = {
        "tokens": f"{training['tokens']:,.0f}",
        "FLOPs": f"{training['flops']:.4g}",
        f"GPU hours at {training['mfu']:.0%} of the peak": _amount(training["gpu_hours"]),
        f"days on {counted(training['gpus'], 'GPUs')}": _amount(training["days"]),
    }
    if "cost" in training:
        rows["cost at your price per GPU hour"] = f"{training['cost']:,.2f}"
    return [{"training": name, "": value} for name, value in rows.items()]


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
