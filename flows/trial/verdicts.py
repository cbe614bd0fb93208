"""Has filter and dedup themselves judge a sample, in a store of its own that is gone afterwards."""

import tempfile
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
from storage.formats.documents import DOCUMENTS, TRAIN, Document, DocumentWriter, read_documents, shard_prefix
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
PART = f"{shard_prefix(TRAIN)}00000"
"""The only part. All of a sample is training text: the hundredth that a run holds out would be nothing."""


@dataclass(frozen=True)
class Verdict:
    """What became of one document."""

    document: Document
    """As it was read."""
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
    with tempfile.TemporaryDirectory(prefix="pile-trial-") as folder:
        store = Store(folder)
        filtered = _built(store, FILTER, config, _corpus(store, sample.documents))
        kept = list(_documents(filtered))
        by_filter = {row.index: row for row in _drops(filtered)}
        by_dedup: dict[int, DropRow] = {}
        if dedup is not None and kept:
            # What earlier artifacts hold is not in this store: the trial compares the sample with itself.
            deduped = _built(store, DEDUP, changed(dedup, against=()), filtered)
            by_dedup = {row.index: row for row in _drops(deduped)}
    verdicts = list(_verdicts(config, sample.documents, by_filter, kept, by_dedup))
    return Trial(recipe.name, sample, verdicts, config)


def _verdicts(
    config: FilterConfig,
    documents: Sequence[Document],
    by_filter: dict[int, DropRow],
    kept: Sequence[Document],
    by_dedup: dict[int, DropRow],
) -> Iterator[Verdict]:
    passed = enumerate(kept)
    for index, document in enumerate(documents):
        policy = config.policy_name(document.subset), document.subset in config.subsets
        if index in by_filter:
            yield Verdict(document, *policy, FILTER.name, by_filter[index])
            continue
        place, filtered = next(passed)
        assert filtered.id == document.id, "what the filter did not drop it kept, in its order"
        if (row := by_dedup.get(place)) is None:
            yield Verdict(document, *policy, filtered=filtered)
        else:
            twin = kept[row.twin_index] if row.twin_index is not None else None
            yield Verdict(document, *policy, DEDUP.name, row, filtered, twin)


def _corpus(store: Store, documents: Sequence[Document]) -> Artifact:
    """Return an artifact that holds the documents as a download would."""
    writer = ArtifactWriter(store, FILTER.inputs["corpus"], KEY)
    path = writer.scratch() / f"{PART}.jsonl.zst"
    with DocumentWriter(path) as shard:
        for document in documents:
            shard.write(document)
    return _published(writer, [writer.commit(PART, {DOCUMENTS: path}, counts=shard.counts())])


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


def _documents(artifact: Artifact) -> Iterator[Document]:
    for file in artifact.files(DOCUMENTS):
        yield from read_documents(artifact.open(file))


def _drops(artifact: Artifact) -> list[DropRow]:
    return [row for file in artifact.files(DROPS) for row in read_drops(artifact.open(file))]
