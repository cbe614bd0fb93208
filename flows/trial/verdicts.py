"""Has filter and dedup themselves judge a sample, in a store of its own that is gone afterwards."""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.recipes.schema import Recipe
from flows.trial.sample import Sample
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.config import Config, changed
from storage.errors import InputError
from storage.formats.documents import (
    DOCUMENTS,
    SPLITS,
    TRAIN,
    Document,
    DocumentWriter,
    read_documents,
    shard_prefix,
)
from storage.formats.drops import DROPS, DropRow, read_drops
from tasks.core.context import StageContext, nobody_watches
from tasks.core.execution import Execution
from tasks.core.stage import Stage
from tasks.dedup.config import DedupConfig
from tasks.dedup.stage import STAGE as DEDUP
from tasks.filter.config import FilterConfig
from tasks.filter.stage import STAGE as FILTER

KEY = "0" * 16
"""Of the artifacts of a store in which there is one of each stage."""

Position = tuple[str, int]
"""Part and index of a document in a corpus."""


@dataclass(frozen=True)
class Verdict:
    """What became of one document."""

    document: Document
    """As it was read."""
    split: str
    policy: str
    """The policy that decided about it."""
    is_named: bool
    """Whether the recipe names its subset; otherwise the policy is that of all others."""
    stage: str = ""
    """The stage that dropped it, '' if it is kept."""
    drop: DropRow | None = None
    """What that stage wrote down about it."""
    filtered: Document | None = None
    """As the filter left it; None if it dropped it."""
    twin: Document | None = None
    """The document for which it went, as the filter left that."""


@dataclass(frozen=True)
class Trial:
    """What became of a sample."""

    recipe: str
    sample: Sample
    verdicts: list[Verdict]
    """In the order of the documents."""
    config: FilterConfig
    against: tuple[str, ...] = ()
    """Earlier artifacts that a run would compare with; a trial compares the sample with itself alone."""

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that a subset may have."""
        return tuple(self.config.policies)


def try_out(recipe: Recipe, sample: Sample) -> Trial:
    """Return what the filter and dedup of a recipe say about a sample; dedup may be off.

    Raises: InputError if the filter is off, or what either of them cannot do.
    """
    config = recipe.section(FilterConfig)
    dedup = next((value for _, value in recipe if isinstance(value, DedupConfig)), None)
    with _passing_store() as store:
        filtered = _built(store, FILTER, config, _corpus(store, sample))
        kept = _documents(filtered)
        by_filter = _drops(filtered)
        by_dedup: dict[Position, DropRow] = {}
        if dedup is not None and kept:
            by_dedup = _drops(_built(store, DEDUP, changed(dedup, against=()), filtered))
    verdicts = list(_verdicts(config, sample, by_filter, kept, by_dedup))
    return Trial(recipe.name, sample, verdicts, config, dedup.against if dedup is not None else ())


@contextlib.contextmanager
def _passing_store() -> Iterator[Store]:
    """Make a store that is gone afterwards, with its scratch, which PILE_SCRATCH may have put elsewhere."""
    with tempfile.TemporaryDirectory(prefix="pile-trial-") as folder:
        store = Store(folder)
        try:
            yield store
        finally:
            shutil.rmtree(store.scratch_root(), ignore_errors=True)


def _verdicts(
    config: FilterConfig,
    sample: Sample,
    by_filter: dict[Position, DropRow],
    kept: dict[Position, Document],
    by_dedup: dict[Position, DropRow],
) -> Iterator[Verdict]:
    read, passed = Counter[str](), Counter[str]()
    for document in sample.documents:
        split = sample.held_out.get(document.id, TRAIN)
        facts = document, split, config.policy_name(document.subset), document.subset in config.subsets
        part = _part(split)
        place = part, read[part]
        read[part] += 1
        if place in by_filter:
            yield Verdict(*facts, FILTER.name, by_filter[place])
            continue
        place = part, passed[part]
        passed[part] += 1
        assert kept[place].id == document.id, "what the filter did not drop it kept, in its order"
        if (row := by_dedup.get(place)) is None:
            yield Verdict(*facts, filtered=kept[place])
        else:
            yield Verdict(
                *facts, DEDUP.name, row, kept[place], kept.get((row.twin_part or "", row.twin_index or 0))
            )


def _part(split: str) -> str:
    return f"{shard_prefix(split)}00000"


def _corpus(store: Store, sample: Sample) -> Artifact:
    """Return an artifact that holds a sample as a download would, a part for each split."""
    writer = ArtifactWriter(store, FILTER.inputs["corpus"], KEY)
    parts = []
    for split in SPLITS:
        chosen = [each for each in sample.documents if sample.held_out.get(each.id, TRAIN) == split]
        path = writer.scratch() / f"{split}.jsonl.zst"
        if chosen:
            with DocumentWriter(path) as shard:
                for document in chosen:
                    shard.write(document)
            parts.append(writer.commit(_part(split), {DOCUMENTS: path}, counts=shard.counts()))
    return _published(writer, parts)


def _built(store: Store, stage: Stage, config: Config, corpus: Artifact) -> Artifact:
    """Return what a stage makes of a corpus. One that drops all of it, which no run goes on with, is shown."""
    writer = ArtifactWriter(store, stage.name, KEY)
    context = StageContext(writer, Execution(workers=1), nobody_watches)
    try:
        parts = list(stage.build(config, corpus=corpus, context=context))
    except InputError:
        if not (parts := list(writer.parts().values())):
            raise
    return _published(writer, parts)


def _published(writer: ArtifactWriter, parts: Sequence[Part]) -> Artifact:
    nothing: dict[str, Any] = {name: {} for name in ("config", "inputs", "sources", "recipe", "libraries")}
    return writer.publish(parts, version=1, run_id="trial", code_commit="", started="", seconds=0.0, **nothing)


def _documents(artifact: Artifact) -> dict[Position, Document]:
    return {
        (file.part, index): document
        for file in artifact.files(DOCUMENTS)
        for index, document in enumerate(read_documents(artifact.open(file)))
    }


def _drops(artifact: Artifact) -> dict[Position, DropRow]:
    return {
        (file.part, row.index): row for file in artifact.files(DROPS) for row in read_drops(artifact.open(file))
    }
