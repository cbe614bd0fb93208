"""The sample of what rules measure: bounded, spread over the shards, the same whoever draws it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from tasks.filter.measured import (
    MOST_DOCUMENTS,
    MOST_OF_SHARD,
    STEP,
    MeasuredValues,
    is_measured,
    read_values,
    shares,
)
from tasks.filter.policies import POLICIES
from tasks.filter.rules.base import Measure
from tasks.filter.rules.registry import make_rule
from tasks.filter.rules.view import DocumentView
from tests.unit.tasks.filtering import PAIRS, make_corpus, run_filter


@given(st.integers(0, 5000))
def test_sample_of_any_corpus_is_bounded_and_spread_evenly(count: int) -> None:
    found = shares([f"train-{number:05d}" for number in range(count)])

    assert len(found) == count
    assert sum(found.values()) <= MOST_DOCUMENTS
    assert max(found.values(), default=0) <= MOST_OF_SHARD
    assert max(found.values(), default=0) - min(found.values(), default=0) <= 1
    if count >= MOST_DOCUMENTS // MOST_OF_SHARD:
        assert sum(found.values()) == MOST_DOCUMENTS


@given(st.integers(0, MOST_OF_SHARD), st.integers(0, 10_000))
def test_so_many_documents_of_a_shard_are_measured(share: int, documents: int) -> None:
    found = [index for index in range(documents) if is_measured(index, share)]

    assert len(found) == min(share, -(-documents // STEP))
    assert found[:1] == [0][: share and documents]


def test_values_are_those_that_rules_measure_of_kept_and_dropped_documents() -> None:
    rules = [make_rule(rule) for rule in POLICIES["web"].rules]
    texts = ["The cat and the dog sat on the mat, and then they had to be off. " * n for n in (1, 30)]
    sample = MeasuredValues()
    expected: dict[tuple[str, str], list[Measure]] = {}
    for text in texts:
        sample.add(rules, DocumentView(text))
        for rule in rules:
            for measure in rule.measures(DocumentView(text)):
                expected.setdefault((rule.config.rule, measure.reason), []).append(measure)

    found = {(entry["rule"], entry["reason"]): entry for entry in sample.info()}
    assert len(found) > 20
    assert found.keys() == expected.keys()
    for kind, measures in expected.items():
        assert read_values(found[kind]) == pytest.approx([measure.value for measure in measures], rel=1e-3)
        assert found[kind]["bounds"] == list(dict.fromkeys(measure.bound for measure in measures))
        assert found[kind]["is_least"] == measures[0].is_least
    assert json.loads(json.dumps(sample.info())) == sample.info()


def samples(artifact: Artifact) -> Sequence[object]:
    parts = ArtifactWriter(artifact.store, "filter", artifact.manifest.key).parts()
    return [parts[name].info["measured"] for name in sorted(parts)]


def test_sample_and_picture_are_the_same_with_any_number_of_workers(
    tmp_path: Path,
) -> None:
    shards = {f"train-{n:05d}": PAIRS * 10 * n for n in range(4)}

    one = run_filter(make_corpus(tmp_path / "one", shards), workers=1)
    two = run_filter(make_corpus(tmp_path / "two", shards), workers=2)

    assert samples(one) == samples(two)
    picture = one.report("filter_values.png") or b""
    assert picture.startswith(b"\x89PNG")
    assert picture == two.report("filter_values.png")
