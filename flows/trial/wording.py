"""What a trial found as rows and words: what the console, JSON and the page have in common."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from flows.trial.verdicts import Verdict
from storage.formats.documents import TRAIN
from storage.formats.drops import DropRow

BEGINNING = 60
"""Characters of a text that stand for it in a line."""

Cause = tuple[str, str, str]
"""Stage, rule and reason."""


ALIKE = ("exact", "near")
"""Rules that ask how similar two documents are; the others ask which share of one stands in the other."""


def json_row(verdict: Verdict) -> dict[str, Any]:
    """Return everything about one document but its text."""
    drop = verdict.drop
    return {
        "id": verdict.document.id,
        "split": verdict.split,
        "subset": verdict.document.subset,
        "policy": verdict.policy,
        "subset_is_named": verdict.is_named,
        "verdict": "dropped" if drop else "kept",
        "stage": verdict.stage or None,
        "rule": drop.rule if drop else None,
        "reason": drop.reason if drop else None,
        "value": drop.value if drop else None,
        "bound": drop.bound if drop else None,
        "twin": drop.twin_id if drop else None,
        "similarity": drop.value if drop and drop.twin_id is not None else None,
    }


def subset_rows(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Return a row per subset: its policy, what is kept, and what is dropped for which reason."""
    by_subset: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_subset[verdict.document.subset].append(verdict)
    rows = [_subset_row(subset, each) for subset, each in sorted(by_subset.items())]
    if len(rows) > 1:
        everything = [verdict for each in by_subset.values() for verdict in each]
        rows.append({**_subset_row("all", everything), "policy": ""})
    return rows


def _subset_row(subset: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    drops = [verdict.drop for verdict in verdicts if verdict.drop]
    reasons = Counter(drop.reason for drop in drops).most_common()
    return {
        "subset": one_line(subset),
        "policy": policy_text(verdicts[0]),
        "documents": len(verdicts),
        "kept": len(verdicts) - len(drops),
        "dropped": len(drops),
        "twins": sum(drop.twin_id is not None for drop in drops),
        "dropped by reason": ", ".join(f"{reason} {count}" for reason, count in reasons),
    }


def by_cause(verdicts: Iterable[Verdict]) -> dict[Cause, list[Verdict]]:
    """Return the dropped documents by what they were dropped for: twins last, frequent reasons first."""
    found: dict[Cause, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.drop:
            found[verdict.stage, verdict.drop.rule, verdict.drop.reason].append(verdict)
    twins = {cause: any(each.twin is not None for each in dropped) for cause, dropped in found.items()}
    return dict(sorted(found.items(), key=lambda item: (twins[item[0]], -len(item[1]))))


def unnamed_subsets(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return how many documents there are of each subset that the recipe does not name."""
    return dict(Counter(verdict.document.subset for verdict in verdicts if not verdict.is_named))


def policy_text(verdict: Verdict) -> str:
    """Return the policy that decided, and whether only since the subset has none of its own."""
    return verdict.policy if verdict.is_named else f"{verdict.policy} (default)"


def facts(verdict: Verdict) -> str:
    """Return subset and policy of a document, and the split if it is held out."""
    split = "" if verdict.split == TRAIN else f", held out in {verdict.split}"
    return f"{one_line(verdict.document.subset)}, {policy_text(verdict)}{split}"


def measured(drop: DropRow) -> str:
    """Return what was measured, and what had to hold; of a twin how similar it is, which has no bound to it."""
    if drop.twin_id is not None:
        name = "similarity" if drop.rule in ALIKE else "containment"
        return "" if drop.value is None else f"{name} {drop.value:.2f}"
    if drop.value is None or drop.bound is None or drop.value == drop.bound:
        return _number(drop.value)
    return f"{_number(drop.value)}, {'at most' if drop.value > drop.bound else 'at least'} {_number(drop.bound)}"


def beginning(text: str) -> str:
    """Return the first words of a text on one line."""
    return one_line(text[: 4 * BEGINNING])[:BEGINNING].rstrip()


def one_line(text: str) -> str:
    """Return text on one line and without what a terminal would take for a command: documents are of others."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
