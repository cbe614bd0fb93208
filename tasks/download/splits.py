"""How the documents are spread over splits and subsets, and whether what is held out is enough to judge by."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from storage.artifacts.records import Part
from storage.formats.documents import SPLITS, TEST, VAL
from storage.wording import counted, size
from tasks.core.context import StageContext

log = logging.getLogger(__name__)

FEWEST_DOCUMENTS, LEAST_BYTES = 20, 50_000
"""A held-out split with less than either says more about its few documents than about a model."""
LARGEST_ADVICE = 0.2
"""A corpus that would have to give more of itself away needs more text instead."""


def report_splits(context: StageContext, parts: Sequence[Part], hold_out: Mapping[str, float]) -> None:
    """Show documents and bytes by subset and split, and say which held-out splits are empty or very small.

    `hold_out` are the shares that are held out, none where the sources come with splits of their own.
    """
    subsets: dict[tuple[str, str], Counter[str]] = {}
    splits: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for part in parts:
        split = part.part.partition("-")[0]
        for name, count in part.counts.items():
            kind, _, subset = name.partition(".")
            if kind in ("documents", "text_bytes"):
                (subsets.setdefault((split, subset), Counter()) if subset else splits[split])[kind] += count
    rows = sorted(subsets.items(), key=lambda row: (SPLITS.index(row[0][0]), row[0][1]))
    context.table(
        "Downloaded",
        [
            {"subset": subset, "split": split, "documents": count["documents"], "text bytes": count["text_bytes"]}
            for (split, subset), count in rows
        ],
    )
    if small := small_splits(splits, hold_out):
        context.table("Too small to judge by", small)
        for row in small:
            log.warning(
                "to judge a model by, the split %s should hold %s and %s of text at least, not %s and %s; %s",
                row["split"],
                counted(FEWEST_DOCUMENTS, "documents"),
                size(LEAST_BYTES),
                counted(row["documents"], "documents"),
                size(row["text bytes"]),
                row["what to do"],
            )


def small_splits(splits: Mapping[str, Mapping[str, int]], hold_out: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each held-out split that is empty or very small, with what to do about it.

    `splits` has the `documents` and `text_bytes` of every split.
    """
    documents = sum(split["documents"] for split in splits.values())
    text_bytes = sum(split["text_bytes"] for split in splits.values())
    # Half as much again, since the hash decides about each document by itself.
    share = 1.5 * max(FEWEST_DOCUMENTS / documents, LEAST_BYTES / text_bytes)
    rows = []
    for split in (VAL, TEST):
        found = splits[split]
        if found["documents"] >= FEWEST_DOCUMENTS and found["text_bytes"] >= LEAST_BYTES:
            continue
        if not hold_out:
            advice = f"give the source more text for {split}"
        elif share > LARGEST_ADVICE:
            advice = f"add text, or set download.source.{split}_fraction={LARGEST_ADVICE}"
        else:
            advice = f"set download.source.{split}_fraction={math.ceil(share * 1000) / 1000:g}"
        rows.append(
            {
                "split": split,
                "documents": found["documents"],
                "text bytes": found["text_bytes"],
                "what to do": advice,
            }
        )
    return rows
