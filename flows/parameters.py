"""What the flow is asked for: the choices in its deployments' forms, names and tags of its runs."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from pydantic import Field, TypeAdapter, WithJsonSchema

from flows.chain import ALL
from flows.liveness import label_process
from flows.recipes.registry import RECIPES
from flows.stages import STAGES

NAME_CHARACTERS = 120
"""Longer names of runs are cut; the tags hold every override."""

RECIPE_CHOICES = {
    "title": "recipe",
    "anyOf": [
        {"type": "string", "title": "by name", "enum": list(RECIPES)},
        TypeAdapter(Annotated[str, Field(title="from a file", pattern=r"\.(ya?ml|json)$")]).json_schema(),
    ],
}

# Schemas for Prefect, which refuses what does not fit before a run is scheduled. Here the words are checked by
# `Request.checked`, whose errors say more.
RecipeName = Annotated[str, WithJsonSchema(RECIPE_CHOICES)]
TargetName = Annotated[str, WithJsonSchema({"type": "string", "enum": [ALL, *STAGES.names()]})]
StageName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(STAGES.names())})]


def run_name(recipe: str, target: str = ALL, overrides: Mapping[str, Any] | None = None, **_: Any) -> str:
    """Return a name that says what differs: `demo`, `demo to tokenize, vocab_size=900`."""
    parts = [recipe if target == ALL else f"{recipe} to {target}"]
    parts += [f"{field.rpartition('.')[2]}={_short(value)}" for field, value in (overrides or {}).items()]
    name = ", ".join(parts)
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def run_tags(
    recipe: str, overrides: Mapping[str, Any] | None, target: str, force: Sequence[str] | None
) -> list[str]:
    """Return the tags of a run: its recipe, target, forced stages and each override."""
    return [
        f"recipe: {recipe}",
        f"target: {target}",
        *(f"force: {stage}" for stage in force or ()),
        *(f"{field}={_short(value)}" for field, value in (overrides or {}).items()),
    ]


def introduce(recipe: str, overrides: Mapping[str, Any] | None, target: str, force: Sequence[str] | None) -> None:
    """Say on the Prefect server what the present flow run is asked for, and which process it is."""
    run_id = UUID(flow_run.id)
    with get_client(sync_client=True) as client:
        tags = [*flow_run.tags, *run_tags(recipe, overrides, target, force)]
        client.update_flow_run(run_id, tags=list(dict.fromkeys(tags)))
        label_process(client, run_id)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "\N{HORIZONTAL ELLIPSIS}"
