"""A stage beside the chain: how many words and characters each collection has after duplicates were dropped.

A recipe switches it on with a section: `statistics: {}`.

Input   corpus       documents of every split
Output  part `statistics`: statistics.json, a row per collection
Rerun   the part is kept once it is committed.
"""

import json
from collections import Counter

from pydantic import Field

from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.config import Config
from storage.formats.documents import DOCUMENTS, read_documents
from tasks.core.context import StageContext
from tasks.core.stage import Stage

STATISTICS = "statistics"
"""The part, and the role of its file."""


class StatisticsConfig(Config):
    """Which collections are counted."""

    min_documents: int = Field(default=1, ge=1)
    """Smaller collections are counted together as `others`."""


def count_words(config: StatisticsConfig, corpus: Artifact, *, context: StageContext) -> list[Part]:
    """Count documents, words and characters of every collection."""
    if finished := context.finished_parts([STATISTICS]):
        return list(finished.values())
    counts: dict[str, Counter[str]] = {}
    shards = corpus.files(DOCUMENTS)
    for done, shard in enumerate(shards, 1):
        for document in read_documents(corpus.open(shard)):
            counts.setdefault(document.subset, Counter()).update(
                documents=1, words=len(document.text.split()), characters=len(document.text)
            )
        context.progress(done, len(shards), "shards")
    rows = [{"subset": subset, **counted} for subset, counted in _with_others(counts, config.min_documents)]
    context.table("Words by collection", rows)
    local = context.writer.scratch() / "statistics.json"
    local.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    total = sum(counts.values(), Counter())
    return [context.writer.commit(STATISTICS, {STATISTICS: local}, counts=dict(total))]


def _with_others(counts: dict[str, Counter[str]], least: int) -> list[tuple[str, dict[str, int]]]:
    large = {subset: counted for subset, counted in counts.items() if counted["documents"] >= least}
    small = [counted for subset, counted in counts.items() if subset not in large]
    others = [("others", dict(sum(small, Counter())))] if small else []
    return [(subset, dict(large[subset])) for subset in sorted(large)] + others


STAGE = Stage(
    name="statistics",
    version=1,
    config=StatisticsConfig,
    build=count_words,
    inputs={"corpus": "dedup"},
    is_default=False,
)
