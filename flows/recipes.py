"""Recipes: everything a run needs, as functions that return a `Recipe`.

A new run is a new function here, a YAML or JSON file with the same fields, or `--set stage.field=value`.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from model.config import WorldShape
from model.presets import find_preset, preset_shape
from storage.config import Config, changed
from storage.errors import InputError
from tasks.build import Execution
from tasks.dedup_corpus import DedupConfig
from tasks.download_corpus import DownloadConfig
from tasks.evaluate_model import EvaluateConfig
from tasks.field_labels import FIELDS, FieldName
from tasks.filter_corpus import FilterConfig
from tasks.pack_tokens import PackConfig
from tasks.publish_model import PublishConfig
from tasks.python_environment import DESCRIPTIONS, DOCSTRINGS, LIBRARY_SOURCE, LICENCES, STDLIB_SOURCE
from tasks.tokenize_corpus import TokenizeConfig
from tasks.tone_labels import TONES
from tasks.train_model import TrainConfig
from tasks.train_tokenizer import TrainTokenizerConfig


class Recipe(Config):
    """One config per stage, and where the work runs."""

    name: str
    """Runs of one name are compared with each other by `pile plan` and kept together by `pile gc`."""
    description: str = ""
    download: DownloadConfig
    filter: FilterConfig = FilterConfig()
    dedup: DedupConfig = DedupConfig()
    train_tokenizer: TrainTokenizerConfig = TrainTokenizerConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    pack: PackConfig = PackConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    publish: PublishConfig = PublishConfig()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        model = self.train.model
        if not isinstance(model, WorldShape) or not model.n_tones:
            return self
        for kind, found, classes in (("tone", model.n_tones, TONES), ("field", model.n_fields, FIELDS)):
            if found != len(classes):
                other = "n_fields" if kind == "tone" else "n_tones"
                raise ValueError(
                    f"train.model.n_{kind}s must be {len(classes)}, the {kind}s that labels know, or 0 together "
                    f"with {other}=0; found {found}"
                )
        return self


def demo() -> Recipe:
    """Everything on two CPU cores in minutes, from the text that every Python installation carries."""
    return Recipe(
        name="demo",
        description="library source, docstrings and licences to a 2M-parameter model; CPU, minutes, no network",
        download=DownloadConfig(
            python_environment_bytes=20_000_000, shard_bytes=2_000_000, val_fraction=0.02, test_fraction=0.03
        ),
        train_tokenizer=TrainTokenizerConfig(vocab_size=4096, reserved_tokens=8),
        pack=PackConfig(sequence_length=256),
        train=TrainConfig(max_steps=400, warmup_steps=40, micro_batch_size=8, checkpoint_every=50, eval_every=100),
        evaluate=EvaluateConfig(prompts=("def ", "class Error(", "Return the ")),
        publish=PublishConfig(
            name="pile-pipeline-demo",
            description="A demonstration of the pipeline; too small and too little trained to be useful.",
        ),
    )


def own_files() -> Recipe:
    """Text files of one's own, split by hash into training and held-out documents."""
    return Recipe(
        name="own-files",
        description="your .jsonl, .jsonl.zst, .jsonl.gz, .parquet or .txt files; set download.files",
        download=DownloadConfig(files=("corpus/*",)),
    )


def pile() -> Recipe:
    """A mirror in The Pile's layout, local or over HTTP."""
    return Recipe(
        name="pile",
        description="a mirror with train/NN.jsonl.zst, val, test and SHA256SUMS.txt; set download.mirror",
        download=DownloadConfig(mirror="pile"),
        train_tokenizer=TrainTokenizerConfig(vocab_size=32768),
        pack=PackConfig(sequence_length=1024),
    )


def tatar_23m() -> Recipe:
    """A small model of a language with little text, read many times: dropout, and a vocabulary of its own."""
    return Recipe(
        name="tatar-23m",
        description="Leipzig-corpus or other text files to a 23M-parameter Tatar model; set download.files",
        download=DownloadConfig(files=("tatar/*",)),
        train_tokenizer=TrainTokenizerConfig(vocab_size=8192),
        pack=PackConfig(sequence_length=256),
        train=TrainConfig(
            model=preset_shape("tatar-23m"), max_steps=20_000, warmup_steps=500, global_batch_size=64,
            micro_batch_size=16, learning_rate=6e-4, checkpoint_every=1000, eval_every=500, eval_sequences=256,
        ),
        evaluate=EvaluateConfig(prompts=("", "Татарстан ", "Бүген ")),
        publish=PublishConfig(name="tatar-23m", languages=("tt",), description="A language model of Tatar."),
    )  # fmt: skip


def gpt2_124m() -> Recipe:
    """GPT-2's smallest size on a mirror of The Pile: 10 billion tokens in batches of half a million."""
    return changed(
        pile(),
        name="gpt2-124m",
        description="a mirror in The Pile's layout to GPT-2 with 124M parameters; set download.mirror",
        train_tokenizer=TrainTokenizerConfig(vocab_size=50_257),
        train=TrainConfig(
            model=preset_shape("gpt2-124m"), max_steps=19_073, warmup_steps=700, global_batch_size=512,
            micro_batch_size=64, learning_rate=6e-4, checkpoint_every=1000, eval_every=250, eval_sequences=512,
        ),
        publish=PublishConfig(name="gpt2-124m-pile", languages=("en",)),
    )  # fmt: skip


def world_1m() -> Recipe:
    """The smallest world model on the demo's text, with probe tokens for its heads; CPU, minutes."""
    base = demo()
    kinds = (LIBRARY_SOURCE, STDLIB_SOURCE, DOCSTRINGS, DESCRIPTIONS)
    fields: dict[str, FieldName | None] = {**dict.fromkeys(kinds, "software"), LICENCES: "law"}
    return changed(
        base,
        name="world-1m",
        description="the demo's text to a world model of the smallest size, heads included; CPU, minutes",
        pack=PackConfig(sequence_length=256, probe_tokens=True, field_map=fields),
        train=changed(base.train, model=preset_shape("world-1m")),
        publish=PublishConfig(name="world-1m-demo"),
    )


def world(size: str, tokens: float, steps_of: int, learning_rate: float) -> Recipe:
    """A larger world model on a mirror of The Pile: `tokens` in all, `steps_of` sequences per update."""
    preset = find_preset(f"world-{size}")
    steps = round(tokens / (steps_of * preset.max_seq_len))
    return changed(
        pile(),
        name=f"world-{size}",
        description=f"a mirror in The Pile's layout to a world model of {size.upper()} parameters",
        train_tokenizer=TrainTokenizerConfig(vocab_size=preset.vocab_size),
        pack=PackConfig(sequence_length=preset.max_seq_len, probe_tokens=True),
        train=TrainConfig(
            model=preset_shape(f"world-{size}"), max_steps=steps, warmup_steps=min(2000, steps // 10),
            global_batch_size=steps_of, micro_batch_size=1, learning_rate=learning_rate, checkpoint_every=1000,
            eval_every=500, eval_sequences=256,
        ),
        publish=PublishConfig(name=f"world-{size}-pile", languages=("en",)),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "own-files": own_files,
    "pile": pile,
    "tatar-23m": tatar_23m,
    "gpt2-124m": gpt2_124m,
    "world-1m": world_1m,
    "world-20m": lambda: world("20m", tokens=4e8, steps_of=64, learning_rate=1e-3),
    "world-800m": lambda: world("800m", tokens=1.6e10, steps_of=256, learning_rate=6e-4),
    "world-235b": lambda: world("235b", tokens=3e11, steps_of=1024, learning_rate=2.2e-4),
}


EXAMPLES = {"gpt2": "gpt2-124m", "rope": "demo", "world": "world-1m"}
"""Model families -> a recipe that shows their fields."""


def find_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by its name or from a .yaml/.json file, with dotted fields replaced.

    Raises: InputError for an unknown name, an unreadable file, an unknown field or a value that cannot be.
    """
    if name in RECIPES:
        fields = json.loads(RECIPES[name]().model_dump_json())
    elif name.endswith((".yaml", ".yml", ".json")):
        fields = _read_recipe_file(Path(name))
    else:
        raise InputError(f"a recipe must be one of {', '.join(RECIPES)} or a .yaml or .json file, found {name!r}")
    for field, value in _whole_model_first(overrides or {}).items():
        _replace(fields, field, value)
    try:
        return Recipe.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise InputError(_explain(error, name)) from None
    except (TypeError, ValueError, RecursionError) as error:  # YAML knows dates, sets and cycles
        raise InputError(f"the recipe {name!r} must consist of JSON values, found: {error}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `stage.field=value`; the value is read as YAML, so `3`, `1e-3`, `true` and `[a, b]` work.

    Raises: InputError if there is no `=` or the value is not YAML.
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise InputError(f"--set must be given as stage.field=value, found {text!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"the value of --set {field} must be YAML or JSON, found {value!r}") from None
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return field.strip(), parsed


def _read_recipe_file(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text())  # JSON is YAML
    except OSError as error:
        raise InputError(f"the recipe file must be readable, found {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be YAML or JSON, found: {error}") from None
    if not isinstance(fields, dict):
        raise InputError(f"{path} must hold the fields of a recipe, found {type(fields).__name__}")
    base = fields.pop("based_on", None)
    if base is None:
        return {"name": path.stem, **fields}
    if not isinstance(base, str) or base not in RECIPES:
        raise InputError(f"based_on in {path} must be one of {', '.join(RECIPES)}, found {base!r}")
    merged = json.loads(RECIPES[base]().model_dump_json())
    _merge(merged, {"name": path.stem, **fields})
    return merged


def _merge(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        whole = isinstance(value, dict) and value.keys() & {"family", "preset"}  # a model that is not the base's
        if isinstance(value, dict) and isinstance(fields.get(name), dict) and not whole:
            _merge(fields[name], value)
        else:
            fields[name] = value


def _whole_model_first(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Let a preset or a family replace the model as a whole: fields of another family mean nothing to it."""
    parts = {f"train.model.{name}": name for name in ("preset", "family")}
    whole = {parts[field]: value for field, value in overrides.items() if field in parts}
    if not whole or "train.model" in overrides:
        return dict(overrides)
    others = {field: value for field, value in overrides.items() if field not in parts}
    return {"train.model": whole, **others}


def _replace(fields: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    if path:  # `train-tokenizer` is the stage, `train_tokenizer` its field
        path[0] = path[0].replace("-", "_")
    for depth, name in enumerate(path):
        if dotted.startswith("train.model.") and isinstance(fields.get(name), str):
            fields[name] = {"preset": fields[name]}  # --set train.model=world-1m --set train.model.top_k=2
        if not isinstance(fields.get(name), dict):
            raise InputError(_unknown(".".join(path[: depth + 1]), fields))
        fields = fields[name]
    fields[last] = value


def _unknown(field: str, known: Mapping[str, Any]) -> str:
    return f"the recipe has no field {field!r}; there are {', '.join(sorted(known))}"


def _explain(error: ValidationError, recipe: str) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        steps = [str(step) for step in problem["loc"]]
        example = "demo"
        if steps[:2] == ["train", "model"] and len(steps) > 2 and steps[2] in EXAMPLES:
            example = EXAMPLES[steps.pop(2)]  # the family, which is no field that contains others
        field = f"{'.'.join(steps)}: " if steps else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"{field}the recipe has no such field; see `pile recipes {example}`")
        else:
            message = problem["msg"].replace("Value error, ", "")
            found = "" if problem["type"] in ("value_error", "missing") else f", found {problem['input']!r:.200}"
            lines.append(f"{field}{message}{found}")
    return f"the recipe {recipe!r} cannot be used: " + "; ".join(lines)
