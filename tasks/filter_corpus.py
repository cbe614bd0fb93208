"""Filter: documents -> the documents that the policy of their subset keeps, and their signatures.

Input   corpus      document shards of `download`
Output  documents   the kept documents, a shard with the same name for each shard; held-out splits too
        signatures  exact hash and MinHash of every kept document (tasks.signature_files)
Reports dropped_samples.jsonl   some dropped documents per subset and reason
Rerun   a finished shard is kept.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import model_validator

from storage.config import Config
from storage.errors import InputError
from storage.formats import DOCUMENTS
from storage.records import Part
from storage.store import Artifact
from tasks.build import Build
from tasks.drop_counts import drop_table, dropped_by_subset, kept_by_subset
from tasks.filter_policies import POLICIES, SUBSETS, MinHash, Policy
from tasks.stage import Stage

log = logging.getLogger(__name__)

UNKNOWN_SUBSET = "unknown_subset"
"""Count of the documents of a subset that `FilterConfig.subsets` does not name."""

MOST_SAMPLES = 20
"""Dropped documents shown per subset and reason in the report."""


class FilterConfig(Config):
    """Which documents are worth training on."""

    policies: dict[str, Policy] = POLICIES
    """Rules by policy name."""
    subsets: dict[str, str] = SUBSETS
    """Subset name -> policy name."""
    default_policy: str = "mild"
    """Policy of subsets that are not named; their documents are counted as `unknown_subset.<name>`."""
    minhash: MinHash = MinHash()
    """How signatures are made; `dedup` reads it from the signature files."""

    @model_validator(mode="after")
    def _named_policies_exist(self) -> "FilterConfig":
        missing = {*self.subsets.values(), self.default_policy} - set(self.policies)
        if missing:
            raise ValueError(
                f"subsets and default_policy must name one of the policies {sorted(self.policies)}, "
                f"found {sorted(missing)}"
            )
        return self

    def policy_name(self, subset: str) -> str:
        """Return the name of the policy that decides about a subset."""
        return self.subsets.get(subset, self.default_policy)

    def policy(self, subset: str) -> Policy:
        """Return the policy that decides about a subset."""
        return self.policies[self.policy_name(subset)]

    def unknown_subsets(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts of the documents, kept and dropped, whose subset is not named here."""
        found = kept_by_subset(counts)
        for subset, reasons in dropped_by_subset(counts).items():
            found[subset] += reasons.total()
        return {f"{UNKNOWN_SUBSET}.{subset}": n for subset, n in found.items() if subset not in self.subsets}


def filter_corpus(config: FilterConfig, corpus: Artifact, *, build: Build) -> list[Part]:
    """Keep what the policies keep, shard by shard, and sign it.

    Raises: InputError if nothing at all is kept.
    """
    # datatrove takes half a second to import, and `pile plan` needs only the config.
    from tasks.filter_pipeline import filter_pipeline  # noqa: PLC0415
    from tasks.shards import run_datatrove  # noqa: PLC0415

    shards = corpus.files(DOCUMENTS)
    finished = build.finished_parts([shard.part for shard in shards])
    left = tuple(shard for shard in shards if shard.part not in finished)
    run_datatrove(build, filter_pipeline(config, corpus, left, build.writer), [shard.part for shard in left])
    committed = build.writer.parts()
    parts = [committed[shard.part] for shard in shards]
    _report(config, parts, build)
    return parts


def _report(config: FilterConfig, parts: Sequence[Part], build: Build) -> None:
    counts = sum((Counter(part.counts) for part in parts), Counter())
    build.table("Dropped", drop_table(counts))
    build.report("dropped_samples.jsonl", _samples(parts))
    for name, documents in sorted(config.unknown_subsets(counts).items()):
        subset = name.removeprefix(f"{UNKNOWN_SUBSET}.")
        log.warning(
            "filter.subsets does not name the subset %r; the policy %r decided about its %d documents",
            subset,
            config.default_policy,
            documents,
        )
    if counts["dropped"] and not counts["documents"]:
        raise InputError(
            f"filter must keep some documents, but dropped all {counts['dropped']}; "
            f"relax the policies: {drop_table(counts)[-1]['dropped by reason']}"
        )


def _samples(parts: Sequence[Part]) -> bytes:
    shown: Counter[tuple[str, str]] = Counter()
    lines = []
    for part in parts:
        for sample in part.info["dropped_samples"]:
            kind = (sample["subset"], sample["reason"])
            shown[kind] += 1
            if shown[kind] <= MOST_SAMPLES:
                lines.append(json.dumps({"part": part.part, **sample}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


STAGE = Stage(name="filter", version=1, config=FilterConfig, build=filter_corpus, inputs={"corpus": "download"})
