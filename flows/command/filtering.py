"""The verb that says what filter and dedup would do with one's documents, before a run."""

import argparse
import contextlib
import logging
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flows.command.fields import COLUMNS
from flows.command.output import print_json, say
from flows.recipes.reading import find_recipe, parse_override
from flows.tables import text_table
from flows.trial.page import page
from flows.trial.sample import take_sample
from flows.trial.verdicts import Trial, Verdict, try_out
from flows.trial.wording import (
    beginning,
    by_cause,
    facts,
    json_row,
    measured,
    one_line,
    subset_rows,
    unnamed_subsets,
)
from storage.errors import InputError
from storage.wording import counted
from tasks.core.loggers import only_from

MOST_DOCUMENTS = 2000
"""Of a trial: more of them take more than seconds, and nobody reads so many."""
SHOWN = 3
"""Documents of each reason that the console shows."""


def try_filter(options: argparse.Namespace) -> int:
    """Judge the first documents of files and say what becomes of each, and why."""
    _check(options)
    recipe = find_recipe(options.recipe, dict(parse_override(text) for text in options.overrides))
    sample = take_sample(recipe, options.files, options.limit, options.subset)
    with contextlib.nullcontext() if options.verbose else only_from(logging.WARNING):
        trial = try_out(recipe, sample)
    if options.html:
        Path(options.html).write_text(page(trial), encoding="utf-8")
    if options.json:
        print_json(_as_json(trial))
        return 0
    _print_tables(trial)
    if options.html:
        print(f"\neach document, with the place that decided marked: {options.html}")
    if not options.quiet:
        _say_what_is_missing(trial)
    return 0


def _check(options: argparse.Namespace) -> None:
    if not 1 <= options.limit <= MOST_DOCUMENTS:
        raise InputError(
            f"--limit must be a number of documents from 1 to {MOST_DOCUMENTS:,}, found {options.limit}; a run "
            f"judges all of them"
        )
    if options.subset is not None and not options.subset.strip():
        raise InputError("--subset must be the name of a subset, found an empty one; leave it out, or name one")
    if not options.html:
        return
    path = Path(options.html)
    if path.suffix.lower() not in (".html", ".htm"):
        # One of the FILEs, perhaps: what is written takes its place.
        raise InputError(
            f"--html must name a file that ends in .html, found {options.html!r}; write --html out.html"
        )
    if not path.parent.is_dir():
        raise InputError(
            f"--html must name a file in a folder that is there, found {options.html!r}; make the folder"
        )


def _as_json(trial: Trial) -> dict[str, Any]:
    return {
        "recipe": trial.recipe,
        "documents": [json_row(verdict) for verdict in trial.verdicts],
        "unnamed_subsets": unnamed_subsets(trial.verdicts),
        "bad_records": [{"file": bad.file, "line": bad.line, "reason": bad.reason} for bad in trial.sample.bad],
        "too_large": trial.sample.too_large,
        "files": trial.sample.files,
        "files_left_out": trial.sample.other_files,
    }


def _print_tables(trial: Trial) -> None:
    sample, verdicts = trial.sample, trial.verdicts
    of_files = f"{counted(len(verdicts), 'documents')} of {counted(sample.files, 'files')}"
    print(f"{of_files}, judged as {trial.recipe} would\n")
    print(text_table(subset_rows(verdicts)))
    for (stage, rule, reason), dropped in by_cause(verdicts).items():
        rest = f", {SHOWN} of them here" if len(dropped) > SHOWN else ""
        names = dict.fromkeys((stage, rule, reason))  # rule and reason may be one word
        print(f"\n{': '.join(names)}: {counted(len(dropped), 'documents')}{rest}")
        for verdict in dropped[:SHOWN]:
            print("\n".join(_document_lines(verdict)))


def _document_lines(verdict: Verdict) -> Iterator[str]:
    """Yield who a dropped document is, what was measured, and how it begins: ids are too long for a column."""
    document, drop = verdict.document, verdict.drop
    assert drop is not None, "only dropped documents have a reason"
    said = [one_line(document.id), facts(verdict), measured(drop)]
    yield from _filled("  ".join(each for each in said if each), "  ")
    if drop.twin_id is not None:
        yield from _filled(f"like {one_line(drop.twin_id)}", "    ")
    if begins := beginning(document.text):
        yield f"    {begins}"


def _filled(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _settable(names: Iterable[str]) -> str:
    """Return the first name that can be written in an option as it stands."""
    return next((name for name in names if name == one_line(name) and "=" not in name), "SUBSET")


def _say_what_is_missing(trial: Trial) -> None:
    """Say what the verdicts do not show: who decided for want of a name, and what was not looked at."""
    sample = trial.sample
    if unnamed := unnamed_subsets(trial.verdicts):
        policy = next(verdict.policy for verdict in trial.verdicts if not verdict.is_named)
        option = shlex.quote(f"filter.subsets.{_settable(unnamed)}=POLICY")
        say(
            f"filter.subsets does not name {', '.join(map(one_line, unnamed))}, so that the default policy "
            f"{policy} decided about {counted(sum(unnamed.values()), 'documents')}; choose one of "
            f"{', '.join(trial.policies)} with\n  --set {option}"
        )
    if sample.bad:
        first = sample.bad[0]
        say(
            f"{counted(len(sample.bad), 'records')} left out that cannot be read, the first in line "
            f"{first.line} of {first.file}: {one_line(first.reason)}"
        )
    if sample.too_large:
        say(
            f"{counted(len(sample.too_large), 'documents')} left out as too large for a trial: "
            f"{one_line(', '.join(sample.too_large[:3]))}"
        )
    if trial.against:
        say(f"not compared with what dedup.against names ({', '.join(trial.against)}), as a run does")
    if sample.other_files:
        say(f"{counted(sample.other_files, 'files')} not looked into: a higher --limit takes documents of more")
