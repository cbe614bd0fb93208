"""What a run is asked for: a recipe, how far, in which store."""

import json
import os
import secrets
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flows.chain import ALL, Step
from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.schema import Recipe
from flows.runs.store_place import store_url
from flows.stages import STAGES
from storage.artifacts.store import Store
from storage.errors import InputError

RUN_COMMAND = "PILE_RUN_COMMAND"
"""Environment variable with the command that asked for the next run, if not its request alone says it."""

RUN_ID = "PILE_RUN_ID"
"""Environment variable with the name of the next run: whoever starts the process knows where to look for it."""


@dataclass(frozen=True)
class Request:
    """What was asked for, checked before any work."""

    recipe: Recipe
    target: str
    force: frozenset[str]
    store: Store
    steps: tuple[Step, ...]
    """What the target needs, in running order."""
    overrides: Mapping[str, Any]
    """Fields of the recipe that were replaced."""
    command: str
    """The command that asks for the same."""

    @classmethod
    def checked(
        cls,
        recipe: str,
        overrides: Mapping[str, Any] | None,
        target: str,
        force: Iterable[str],
        store: str | None,
    ) -> "Request":
        """Resolve names. Raises: InputError for anything that does not exist or cannot be."""
        found = find_recipe(recipe, overrides)
        steps = found.steps(target)
        needed = [step.stage.name for step in steps]
        forced = frozenset(force)
        for name in sorted(forced):
            STAGES.get(name)
        if unneeded := forced.difference(needed):
            raise InputError(
                f"a forced stage must be one that {target} needs ({', '.join(needed)}), "
                f"found {', '.join(sorted(unneeded))}; choose another target or switch it on"
            )
        opened = open_store(store)
        changes = dict(overrides or {})
        typed = os.environ.pop(RUN_COMMAND, "")
        command = typed or command_text([recipe], changes, target, opened, sorted(forced))
        return cls(found, target, forced, opened, steps, changes, command)

    def under_way(self) -> "Request":
        """Return the request with a store that is waited for when it is away, after a look that it answers now.

        Raises: InputError for what the user must set; StoreAwayError, Fault or OSError in less than a minute.
        """
        return replace(self, store=self.store.patient(60 * self.recipe.execution.store_patience_minutes))


def open_store(url: str | None) -> Store:
    """Open the given store, or the one of PILE_STORE, or `pile-store` in the present folder."""
    return Store(store_url(url))


def new_run_id() -> str:
    """Return the name for a run that this process was given, once; else a new one that sorts by time."""
    return os.environ.pop(RUN_ID, "") or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def store_option(store: Store) -> str:
    """Return the option that names this store, with a blank before it; empty for the one that is taken anyway."""
    return "" if store.url == open_store(None).url else f" --store {shlex.quote(store.url)}"


def override_text(field: str, value: Any) -> str:
    """Return what is to be written behind --set to replace a field by a value."""
    plain = f"{field}={value}"
    is_read_so = isinstance(value, str) and parse_override(plain) == (field, value)
    return plain if is_read_so else f"{field}={json.dumps(value, ensure_ascii=False)}"


def command_text(
    asked: Iterable[str], overrides: Mapping[str, Any], target: str, store: Store, force: Iterable[str] = ()
) -> str:
    """Return the command that runs a recipe, and its files, with these fields replaced; from any folder."""
    words = ["pile", "run", *asked]
    for field, value in overrides.items():
        words += ["--set", override_text(field, value)]
    words += ["--target", target] if target != ALL else []
    words += [word for stage in force for word in ("--force", stage)]
    return shlex.join([*words, "--store", store.url])
