"""How stages that drop documents count them: per subset and reason, in flat names that sum over parts.

documents, text_bytes, documents.<subset>, text_bytes.<subset>   what was kept
dropped, dropped.<subset>.<reason>                               what was not; a reason holds no dot
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

DROPPED = "dropped"
DOCUMENTS = "documents"


def count_kept(counts: Counter[str], subset: str, text_bytes: int) -> None:
    """Count a document that is kept."""
    counts[DOCUMENTS] += 1
    counts["text_bytes"] += text_bytes
    counts[f"{DOCUMENTS}.{subset}"] += 1
    counts[f"text_bytes.{subset}"] += text_bytes


def count_dropped(counts: Counter[str], subset: str, reason: str) -> None:
    """Count a document that is dropped."""
    counts[DROPPED] += 1
    counts[f"{DROPPED}.{subset}.{reason}"] += 1


def kept_by_subset(counts: Mapping[str, int]) -> Counter[str]:
    """Return the number of kept documents of each subset."""
    prefix = f"{DOCUMENTS}."
    return Counter({name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)})


def dropped_by_subset(counts: Mapping[str, int]) -> dict[str, Counter[str]]:
    """Return the number of dropped documents of each subset and reason."""
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    for name, count in counts.items():
        if name.startswith(f"{DROPPED}."):
            subset, _, reason = name.removeprefix(f"{DROPPED}.").rpartition(".")
            dropped[subset][reason] += count
    return dict(dropped)


def drop_table(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return a row per subset, and one of all: documents in, kept, dropped, and the reasons by frequency."""
    kept, dropped = kept_by_subset(counts), dropped_by_subset(counts)
    rows = [_row(subset, kept[subset], dropped.get(subset, Counter())) for subset in sorted({*kept, *dropped})]
    return [*rows, _row("all", sum(kept.values()), sum(dropped.values(), Counter()))]


def _row(subset: str, kept: int, dropped: Counter[str]) -> dict[str, Any]:
    reasons = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return {
        "subset": subset,
        "documents in": kept + dropped.total(),
        "kept": kept,
        "dropped": dropped.total(),
        "dropped by reason": ", ".join(f"{reason} {count}" for reason, count in reasons),
    }
