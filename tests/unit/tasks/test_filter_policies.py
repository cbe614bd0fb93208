import json

import pytest
from pydantic import ValidationError

from storage.canonical import canonical_json
from tasks.filter.config import FilterConfig
from tasks.filter.policies import POLICIES, SUBSETS, GopherRepetition, LengthRules, Policy

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
    fields["policies"]["code"]["code"]["max_line_characters"] = 999

    assert FilterConfig.model_validate_json(json.dumps(fields)).identity() != FilterConfig().identity()


def test_code_and_synthetic_text_never_meet_rules_for_prose() -> None:
    for name in ("code", "synthetic"):
        policy = POLICIES[name]
        assert policy.gopher_quality is policy.gopher_repetition is policy.fineweb_quality is None
    assert not POLICIES["synthetic"].minhash


def test_policies_for_long_texts_have_no_upper_bound_on_words() -> None:
    for name in ("books", "papers", "law"):
        rules = POLICIES[name].gopher_quality
        assert rules is not None
        assert rules.max_doc_words is None


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
        LengthRules(min_characters=10, max_characters=9)
    with pytest.raises(ValidationError, match="n-gram"):
        GopherRepetition(top_n_grams=((0, 0.5),))


def test_subset_without_policy_gets_the_default_one() -> None:
    config = FilterConfig(
        policies={"a": Policy(), "b": Policy(minhash=False)}, subsets={"X": "a"}, default_policy="b"
    )

    assert config.policy("X").minhash
    assert not config.policy("Y").minhash
    assert config.unknown_subsets(
        {"documents.X": 3, "documents.Y": 2, "dropped.Y.empty": 1, "dropped.Z.z.empty": 4}
    ) == {
        "unknown_subset.Y": 3,
        "unknown_subset.Z.z": 4,
    }
