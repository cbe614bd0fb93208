"""What every model family promises, each promise as a check of one family and one of its tiny configs."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from model.export.fields import Fields
from model.export.tensors import read_weights, write_weights
from model.families.base import DataSizes, Family, ModelConfig, ModelShape
from model.layers.language_model import LanguageModel
from model.pretrained.check import fresh_modules, logit_tolerance
from storage.errors import InputError
from tests.conformance.language_model_checks import (
    NETWORK_CHECKS,
    assert_close,
    new_model,
    random_ids,
    varied_model,
)

Check = Callable[[Family[Any], ModelConfig], None]


def config_comes_back_from_json(family: Family[Any], config: ModelConfig) -> None:
    """JSON gives back the config, and its fields without those of the data the shape."""
    assert family.config.model_validate_json(config.model_dump_json()) == config
    shape = _shape(family, config)
    assert family.shape.model_validate_json(shape.model_dump_json()).model_dump() == shape.model_dump()


def unknown_fields_are_refused(family: Family[Any], config: ModelConfig) -> None:
    """A misspelt field is an error, in the shape and in the config."""
    fields = {**config.model_dump(), "no_such_field": 1}
    for kind in (family.config, family.shape):
        with pytest.raises(ValidationError, match="no_such_field"):
            kind.model_validate(fields)


def identity_names_family_and_version(family: Family[Any], config: ModelConfig) -> None:
    """Name and version of the family decide the key, besides every field."""
    for found in (config, _shape(family, config)):
        assert found.identity()["family"] == family.name
        number = found.family_version + 1
        raised = type("Raised", (type(found),), {"family_version": number})
        assert raised.model_validate(found.model_dump()).identity() == {
            **found.identity(),
            "family_version": number,
        }
        assert found.model_dump().items() <= found.identity().items()


def version_is_that_of_the_shape(family: Family[Any], config: ModelConfig) -> None:
    """A recipe holds the shape: a version that the config alone has would not be in the key."""
    assert family.config.family_version == family.shape.family_version


def importing_it_loads_no_torch(family: Family[Any], config: ModelConfig) -> None:
    """Recipes load every family, and must stay quick."""
    assert not _loads_torch(type(family).__module__)


def formulas_count_the_modules(family: Family[Any], config: ModelConfig) -> None:
    """The parameters on paper are those of the modules on the meta device."""
    with torch.device("meta"):
        model = family.build(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert sum(family.formulas(config).parameters_by_kind().values()) == counted


def estimates_make_sense(family: Family[Any], config: ModelConfig) -> None:
    """Numbers on paper are positive, and a token does not work on more parameters than there are."""
    formulas = family.formulas(config)
    assert min(formulas.layers, formulas.width, formulas.table_layers()) > 0
    assert min(formulas.attention_layers, formulas.query_width, formulas.kv_width, formulas.state_bytes()) >= 0
    assert formulas.attention_layers * formulas.kv_width + formulas.state_bytes() > 0
    assert all(number >= 0 for number in (*formulas.training_flops().values(), *formulas.layer_groups().values()))
    idle = formulas.looked_up_parameters() + formulas.unrouted_parameters()
    assert 0 <= idle < sum(formulas.parameters_by_kind().values())


def layer_table_is_rows_or_refused(family: Family[Any], config: ModelConfig) -> None:
    """A table is JSON, its rows and their parameters are those on paper; without one the user is told."""
    try:
        rows = family.layer_table(config)
    except InputError:
        return
    formulas = family.formulas(config)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len(rows) == formulas.table_layers()
    assert sum(row["parameters"] for row in rows) == sum(formulas.parameters_by_kind().values())


def measurements_are_json_with_pages(family: Family[Any], config: ModelConfig) -> None:
    """What a family measures is JSON, and every picture has a page that can be drawn from it."""
    documents = {subset: [random_ids(config, 1, 40, seed)[0].tolist()] for seed, subset in enumerate(("a", "b"))}
    found = family.measure(varied_model(family, config), documents, lambda ids: [f"<{each}>" for each in ids])
    for measurement in found.values():
        assert json.loads(json.dumps(measurement.numbers, allow_nan=False)) == measurement.numbers
        for role, values in measurement.pictures.items():
            page = family.pictures[role]
            assert page.draw(json.loads(json.dumps(values, allow_nan=False)))
            assert page.file


def is_published_or_refused(family: Family[Any], config: ModelConfig) -> None:
    """There is an architecture, or the user is told that there is none."""
    if family.architectures():
        assert family.architecture(config).expresses(config)
    else:
        with pytest.raises(InputError, match="to be published"):
            family.architecture(config)


def transformers_computes_the_same(family: Family[Any], config: ModelConfig) -> None:
    """A written folder, loaded by transformers, has the logits of the model."""
    if not family.architectures():
        return
    model, ids = varied_model(family, config), random_ids(config, 2, 24)
    with tempfile.TemporaryDirectory() as place, fresh_modules():
        folder = Path(place)
        code = _write(family, model, folder)
        load: Any = AutoModelForCausalLM.from_pretrained
        theirs = load(folder, local_files_only=True, trust_remote_code=code, dtype=torch.float32).eval()
        assert type(theirs).__name__ == family.architecture(config).name
        with torch.inference_mode():
            wanted, found = model(ids), theirs(input_ids=ids).logits
    difference = float((wanted - found).abs().max())
    assert difference <= logit_tolerance(model, ids, wanted, difference)


def written_folder_comes_back(family: Family[Any], config: ModelConfig) -> None:
    """A model read from a written folder is the same, and is written again bit for bit."""
    if not family.architectures():
        return
    model, architecture = varied_model(family, config), family.architecture(config)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _write(family, model, folder)
        values = json.loads((folder / "config.json").read_text())
        assert values["model_type"] == architecture.model_type
        read = architecture.read_config(Fields(values, "config.json"))
        assert architecture.write_config(read) == values
        written = read_weights(folder)
        found = architecture.from_tensors(written, read)
        again = architecture.to_tensors(found, read)
        assert again.keys() == written.keys()
        assert all(torch.equal(again[name], written[name]) for name in written)
        other, ids = new_model(family, read, 7).eval(), random_ids(config, 2, 9)
        other.load_state_dict({name: found[name].clone() for name in found}, assign=True)
        with torch.inference_mode():
            assert_close(other(ids), model(ids))


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        config_comes_back_from_json,
        unknown_fields_are_refused,
        identity_names_family_and_version,
        version_is_that_of_the_shape,
        importing_it_loads_no_torch,
        formulas_count_the_modules,
        estimates_make_sense,
        layer_table_is_rows_or_refused,
        *NETWORK_CHECKS,
        measurements_are_json_with_pages,
        is_published_or_refused,
        transformers_computes_the_same,
        written_folder_comes_back,
    )
}


def _shape(family: Family[Any], config: ModelConfig) -> ModelShape:
    fields = {name: value for name, value in config.model_dump().items() if name not in DataSizes.model_fields}
    return family.shape.model_validate(fields)


@cache
def _loads_torch(module: str) -> bool:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode != 0


def _write(family: Family[Any], model: LanguageModel, folder: Path) -> bool:
    """Write what transformers loads; return whether it is code, too."""
    architecture = family.architecture(model.config)
    (folder / "config.json").write_text(json.dumps(architecture.write_config(model.config)))
    write_weights(architecture.to_tensors(model.state_dict(), model.config), folder)
    code = architecture.code_files()
    for name, source in code.items():
        (folder / name).write_text(source)
    return bool(code)
