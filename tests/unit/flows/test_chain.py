"""Which stages a recipe runs, in which order, and what each then reads."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.chain import ALL, chain
from storage.config import Config
from storage.errors import InputError
from tasks.core.stage import Stage


class NoConfig(Config):
    """Nothing to choose."""


def stage(name: str, passes: str = "", follows: str = "", needs_all: bool = False, **inputs: str) -> Stage:
    return Stage(
        name=name,
        version=1,
        config=NoConfig,
        build=lambda *_, **__: [],
        inputs=inputs,
        passes=passes,
        follows=follows,
        needs_all=needs_all,
    )


DOWNLOAD = stage("download")
FILTER = stage("filter", passes="corpus", corpus="download")
DEDUP = stage("dedup", passes="corpus", corpus="filter")
VOCABULARY = stage("vocabulary", corpus="dedup")
TOKENIZE = stage("tokenize", corpus="dedup", tokenizer="vocabulary")
OURS = (DOWNLOAD, FILTER, DEDUP, VOCABULARY, TOKENIZE)
DECONTAMINATE = stage("decontaminate", passes="corpus", follows="dedup", corpus="dedup")
SHORTEN = stage("shorten", passes="corpus", follows="decontaminate", corpus="decontaminate")
STATISTICS = stage("statistics", corpus="dedup")


def inputs(*stages: Stage, off: str = "", target: str = ALL) -> dict[str, dict[str, str]]:
    """Return what each stage reads, in running order."""
    configs: dict[str, Any] = {each.name: None if each.name in off.split() else NoConfig() for each in stages}
    return {step.stage.name: dict(step.inputs) for step in chain(stages, configs, target)}


def test_order_follows_from_the_inputs() -> None:
    found = inputs(*reversed(OURS))
    assert list(found) == [each.name for each in OURS]
    assert found["tokenize"] == {"corpus": "dedup", "tokenizer": "vocabulary"}


@given(st.permutations((*OURS, DECONTAMINATE, SHORTEN, STATISTICS)))
def test_in_whatever_order_stages_are_registered_each_comes_after_what_it_reads(stages: list[Stage]) -> None:
    done: set[str] = set()
    found = inputs(*stages)
    for name, read in found.items():
        assert set(read.values()) <= done
        done.add(name)
    assert found == inputs(*OURS, DECONTAMINATE, SHORTEN, STATISTICS)


def test_target_runs_what_it_is_made_from_alone() -> None:
    assert list(inputs(*OURS, STATISTICS, target="dedup")) == ["download", "filter", "dedup"]
    assert list(inputs(*OURS, STATISTICS, target="statistics"))[-2:] == ["dedup", "statistics"]
    assert "statistics" not in inputs(*OURS, STATISTICS, target="tokenize")


def test_readers_of_a_stage_that_is_off_read_what_it_would_have_read() -> None:
    found = inputs(*OURS, off="dedup")
    assert "dedup" not in found
    assert found["vocabulary"] == {"corpus": "filter"}
    assert found["tokenize"] == {"corpus": "filter", "tokenizer": "vocabulary"}
    assert inputs(*OURS, off="dedup filter")["tokenize"]["corpus"] == "download"


def test_stage_that_passes_nothing_may_be_off_if_nobody_reads_it() -> None:
    assert list(inputs(*OURS, off="tokenize"))[-1] == "vocabulary"
    with pytest.raises(InputError, match=r"^the stage vocabulary must be on, since tokenize reads"):
        inputs(*OURS, off="vocabulary")


def test_stage_that_needs_what_only_its_input_writes_is_named() -> None:
    signed = replace(DEDUP, needs_all=True)
    stages = tuple(signed if each is DEDUP else each for each in OURS)
    with pytest.raises(InputError, match=r"^the stage filter must be on, since dedup reads"):
        inputs(*stages, off="filter")
    assert inputs(*stages, off="filter dedup")["tokenize"]["corpus"] == "download"


def test_stage_that_follows_another_is_read_in_its_place() -> None:
    found = inputs(*OURS, DECONTAMINATE, STATISTICS)
    assert found["decontaminate"] == {"corpus": "dedup"}
    assert {found[name]["corpus"] for name in ("vocabulary", "tokenize", "statistics")} == {"decontaminate"}
    assert inputs(*OURS, DECONTAMINATE, off="decontaminate") == inputs(*OURS)


def test_stages_that_follow_each_other_stand_in_a_row() -> None:
    found = inputs(*OURS, SHORTEN, DECONTAMINATE)
    assert found["decontaminate"] == {"corpus": "dedup"}
    assert found["shorten"] == {"corpus": "decontaminate"}
    assert found["tokenize"]["corpus"] == "shorten"


def test_stage_follows_even_what_is_off() -> None:
    found = inputs(*OURS, DECONTAMINATE, off="dedup")
    assert found["decontaminate"] == {"corpus": "filter"}
    assert found["tokenize"]["corpus"] == "decontaminate"


def test_two_stages_cannot_follow_the_same() -> None:
    other = replace(DECONTAMINATE, name="other")
    with pytest.raises(InputError, match="found decontaminate and other"):
        inputs(*OURS, DECONTAMINATE, other)
    assert inputs(*OURS, DECONTAMINATE, other, off="other")["tokenize"]["corpus"] == "decontaminate"


@pytest.mark.parametrize(
    "stages",
    [
        (stage("a", x="b"), stage("b", x="a")),
        (stage("a", x="a"),),
        (stage("reader", x="a"), stage("a", x="b", follows="b"), stage("b", x="a", follows="a")),
        (*OURS, stage("marks", corpus="dedup", tokenizer="vocabulary", follows="dedup")),
    ],
    ids=["two", "itself", "followers", "follower of what its reader reads"],
)
def test_circle_is_refused(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(InputError, match="must not read each other"):
        inputs(*stages)


def test_circle_of_stages_that_are_off_is_refused() -> None:
    loop = (stage("a", passes="x", x="b"), stage("b", passes="x", x="a"), stage("reader", x="a"))
    with pytest.raises(InputError, match="must not"):
        inputs(*loop, off="a b")


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match=r"^the stage reader must read stages that there are, found 'nothing'"):
        inputs(*OURS, stage("reader", corpus="nothing"))
    with pytest.raises(InputError, match=r"a target must be all or one of download, .* found 'nothing'"):
        inputs(*OURS, target="nothing")
    with pytest.raises(InputError, match=r"^the target dedup must be on"):
        inputs(*OURS, off="dedup", target="dedup")
    with pytest.raises(InputError, match=r"^follower must read dedup, which it follows"):
        inputs(*OURS, stage("follower", corpus="filter", follows="dedup"))
