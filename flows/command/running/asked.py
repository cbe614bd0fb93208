"""What the verbs that run or plan a recipe are asked for."""

import argparse
import os
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flows.recipes.reading import find_recipe, parse_override
from flows.recipes.sizing import PATTERNS, Corpus, has_gpu, own_sizes
from flows.runs.request import Request, command_text
from storage.errors import InputError
from storage.wording import size

OWN_FILES = "own-files"
"""The recipe whose sizes follow from the files that it is given."""


def asked(options: argparse.Namespace, target: str, force: Iterable[str] = ()) -> Request:
    """Return the request of a command, with files and the sizes that fit them as overrides. Raises: InputError."""
    given = dict(parse_override(text) for text in options.overrides)
    if not options.files:
        return Request.checked(options.recipe, given, target, force, options.store)
    request = Request.checked(options.recipe, _with_files(options, given), target, force, options.store)
    # On the same machine the same files have the same sizes again, and nobody can read a command with all of them.
    command = command_text([options.recipe, *_paths(options)], given, target, request.store, force)
    return replace(request, command=command)


def _with_files(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    source = (find_recipe(options.recipe).model_dump()["download"] or {}).get("source", {})
    if "patterns" not in source or PATTERNS in given:
        found = f"--set {PATTERNS} too" if PATTERNS in given else options.recipe
        raise InputError(
            f"files can be given once, to a recipe that reads files, as {OWN_FILES} does, found {found}; "
            f"write `pile {options.verb_name} {OWN_FILES} {' '.join(options.files)}`"
        )
    patterns = _paths(options)
    if options.recipe != OWN_FILES:
        return {PATTERNS: patterns, **given}
    corpus = Corpus.measured(patterns)
    gpu = has_gpu() and given.get("execution.device") != "cpu"
    sizes = own_sizes(corpus, given, gpu=gpu)
    if not options.quiet:
        _say_sizes(corpus, sizes, gpu=gpu)
    return {PATTERNS: patterns, **sizes, **given}


def _paths(options: argparse.Namespace) -> list[str]:
    return [file if "://" in file else os.path.abspath(os.path.expanduser(file)) for file in options.files]


def _say_sizes(corpus: Corpus, sizes: dict[str, Any], *, gpu: bool) -> None:
    """Say which numbers were chosen: whoever wants others must know their names."""
    where = "a GPU" if gpu else "the CPU"
    shown = ", ".join(f"{field}={value}" for field, value in sizes.items() if field != "train.model")
    text = f"about {size(corpus.text_bytes)} of text on {where}: {shown}; change any with --set"
    print(textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False), file=sys.stderr)
