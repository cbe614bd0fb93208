"""What the default policies are for: junk of every kind goes, text that is easily mistaken for it stays."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest

from tasks.filter.policies import POLICIES
from tasks.filter.rules.base import Rule, judge_document
from tasks.filter.rules.registry import make_rule
from tests.unit.tasks.junk import JUNK
from tests.unit.tasks.kept import KEPT

OF_A_KIND = 300
LEAST_KEPT = 0.95


@cache
def rules_of(policy: str) -> list[Rule[Any]]:
    return [make_rule(rule) for rule in POLICIES[policy].rules]


def judged(texts: list[str], policy: str) -> Counter[str]:
    """Return how many are kept (under an empty name), and how many dropped for each reason."""
    drops = [judge_document(rules_of(policy), text).drop for text in texts]
    return Counter("" if drop is None else drop.reason for drop in drops)


@pytest.mark.parametrize("kind", JUNK, ids=lambda kind: kind.__name__)
def test_junk_is_dropped_by_every_policy_it_can_fall_under(kind: Callable[[Random], str]) -> None:
    texts = [kind(Random(f"{kind.__name__} {number}")) for number in range(OF_A_KIND)]
    passed = {policy: judged(texts, policy)[""] for policy in JUNK[kind]}

    assert len(set(texts)) > OF_A_KIND / 2
    assert passed == dict.fromkeys(JUNK[kind], 0)


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.__name__)
def test_what_a_person_would_keep_is_kept(kind: Callable[[], list[str]]) -> None:
    texts = kind()

    assert len(texts) >= 20
    for policy in KEPT[kind]:
        found = judged(texts, policy)
        assert found[""] >= LEAST_KEPT * len(texts), (policy, found.most_common())


def test_every_policy_that_drops_anything_is_held_to_junk_and_to_what_is_kept() -> None:
    asked = {name for name, policy in POLICIES.items() if policy.rules}

    assert {policy for policies in JUNK.values() for policy in policies} == asked
    assert {policy for policies in KEPT.values() for policy in policies} == asked - {"papers"}
