"""Names, tags and the form's choices of a flow run."""

import jsonschema
import pytest
from prefect.utilities.callables import parameter_schema

from flows.parameters import NAME_CHARACTERS, run_name, run_tags
from flows.pipeline import pile_pipeline
from flows.recipes.registry import RECIPES
from flows.stages import STAGES

SCHEMA = parameter_schema(pile_pipeline.fn).model_dump()


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"recipe": "demo"}, "demo"),
        ({"recipe": "demo", "target": "tokenize"}, "demo to tokenize"),
        (
            {"recipe": "own.yaml", "overrides": {"train_tokenizer.vocab_size": 900, "dedup": None}},
            "own.yaml, vocab_size=900, dedup=null",
        ),
    ],
)
def test_run_name_says_what_differs(asked, name: str) -> None:
    assert run_name(**asked) == name


def test_run_name_of_many_overrides_is_cut_and_its_tags_hold_them_all() -> None:
    overrides = {f"train.field_{number}": number for number in range(50)}
    assert len(run_name("demo", overrides=overrides)) == NAME_CHARACTERS
    tags = run_tags("demo", overrides, "all", ["train"])
    assert {"recipe: demo", "target: all", "force: train", "train.field_49=49"} <= set(tags)


@pytest.mark.parametrize(
    "parameters",
    [{}, *({"recipe": name} for name in RECIPES), {"recipe": "my/own.yaml"}, {"recipe": "run.json"}]
    + [{"target": name, "force": [name]} for name in STAGES.names()]
    + [{"overrides": {"train.max_steps": 3}, "store": None}],
)
def test_form_takes_what_can_run(parameters) -> None:
    jsonschema.validate(parameters, SCHEMA)


@pytest.mark.parametrize(
    "parameters",
    [{"recipe": "dmeo"}, {"target": "tokenise"}, {"force": ["trian"]}, {"force": "train"}, {"overrides": 3}],
)
def test_form_refuses_what_does_not_exist(parameters) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(parameters, SCHEMA)
