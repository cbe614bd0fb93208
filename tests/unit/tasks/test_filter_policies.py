import json

import pytest
from pydantic import ValidationError

from storage.canonical import canonical_json
from tasks.filter.config import FilterConfig
from tasks.filter.policies import POLICIES, SUBSETS, Policy
from tasks.filter.rules.registry import rule_config

PILE = """ArXiv, BookCorpus2, Books3, DM Mathematics, Enron Emails, EuroParl, FreeLaw, Github, Gutenberg (PG-19),
HackerNews, NIH ExPorter, OpenSubtitles, OpenWebText2, PhilPapers, Pile-CC, PubMed Abstracts, PubMed Central,
StackExchange, USPTO Backgrounds, Ubuntu IRC, Wikipedia (en), YoutubeSubtitles""".replace("\n", " ").split(", ")


def test_all_22_subsets_of_the_pile_have_a_policy() -> None:
    assert len(PILE) == 22
    assert set(PILE) <= set(SUBSETS)


def test_default_config_read_back_from_json_has_the_same_identity() -> None:
    config = FilterConfig()
    read_back = FilterConfig.model_validate_json(config.model_dump_json())

    assert canonical_json(read_back.identity()) == canonical_json(config.identity())


def test_changed_rule_of_one_policy_changes_the_identity() -> None:
    fields = json.loads(FilterConfig().model_dump_json())
    fields["policies"]["code"]["rules"][1]["max_line_characters"] = 999

    assert FilterConfig.model_validate_json(json.dumps(fields)).identity() != FilterConfig().identity()


def test_order_and_version_of_the_rules_of_a_policy_are_part_of_its_identity() -> None:
    first, second = rule_config("length"), rule_config("code")

    assert Policy(rules=(first, second)).identity() != Policy(rules=(second, first)).identity()
    assert Policy(rules=(first,)).identity()["rules"][0]["version"] == first.version


def test_rule_that_does_not_exist_is_refused_with_the_names_of_those_that_do() -> None:
    with pytest.raises(ValidationError, match="gopher-quality"):
        Policy.model_validate({"rules": ({"rule": "grammar"},)})


def test_code_and_synthetic_text_never_meet_rules_for_prose() -> None:
    for name in ("code", "synthetic"):
        assert {rule.rule for rule in POLICIES[name].rules} <= {"length", "code", "plain-text"}
    assert not POLICIES["synthetic"].near_duplicates


def test_policies_for_long_texts_have_no_upper_bound_on_words() -> None:
    for name in ("books", "papers", "law"):
        bounds = [dict(rule)["max_doc_words"] for rule in POLICIES[name].rules if rule.rule == "gopher-quality"]
        assert bounds == [None]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"default_policy": "strict"}, "strict"),
        ({"subsets": {"Github": "cod"}}, "cod"),
        ({"policies": {"mild": Policy()}}, "web"),
    ],
    ids=["default", "subset", "policy removed"],
)
def test_policy_name_that_does_not_exist_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        FilterConfig(**changes)


def test_rules_that_no_document_can_meet_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_characters"):
        rule_config("length", min_characters=10, max_characters=9)
    with pytest.raises(ValidationError, match="n-gram"):
        rule_config("gopher-repetition", top_n_grams=((0, 0.5),))


def test_subset_without_policy_gets_the_default_one() -> None:
    config = FilterConfig(
        policies={"a": Policy(), "b": Policy(near_duplicates=False)}, subsets={"X": "a"}, default_policy="b"
    )

    assert config.policy("X").near_duplicates
    assert not config.policy("Y").near_duplicates
    assert config.unknown_subsets(
        {"documents.X": 3, "documents.Y": 2, "dropped.Y.empty": 1, "dropped.Z.z.empty": 4}
    ) == {
        "unknown_subset.Y": 3,
        "unknown_subset.Z.z": 4,
    }
