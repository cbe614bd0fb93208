"""What the report says in words about heads and context layers."""

from typing import Any

import pytest

from tasks.reports.world import context_sections, heads_sections, score_rows, verdict, world_sections


def scored(documents: int, head: float, majority: float, words: float) -> dict[str, Any]:
    values = {"head": head, "majority": majority, "bag_of_words": words}
    return {"documents": documents, "accuracy": values, "macro_f1": values}


def head(
    accuracies: tuple[float, float, float], stripped: tuple[float, float, float] = (0.9, 0.1, 0.1)
) -> dict[str, Any]:
    nothing = {"head": None, "bag_of_words": None}
    rows = {row: scored(100, *accuracies) for row in ("all", "sure", "enough")}
    classes = [
        {"class": name, "train_documents": trained, "documents": 0, "recall": nothing}
        for name, trained in (("law", 3), ("software", 0), ("politics", 0))
    ]
    return {
        **rows, "stripped": scored(100, *stripped), "abstained": 0.25, "majority": "law", "classes": classes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((0.5, 0.5, 0.4), "no better than one that always names the commonest"),
        ((0.6, 0.5, 0.6), "no more than the words alone do"),
        ((0.7, 0.5, 0.6), "better than both baselines"),
    ],
)
def test_verdict_compares_the_head_with_both_baselines(accuracies: tuple[float, float, float], said: str) -> None:
    text = verdict("tone", head(accuracies))
    assert said in text
    assert "The majority class is `law`." in text
    assert "On 25.0 % of the documents the head is less than 50 % sure" in text
    assert "uncertain by up to 0.10" in text
    assert "punctuation" not in text


def test_verdict_says_when_a_head_goes_by_punctuation_or_formats() -> None:
    fallen = head((0.8, 0.5, 0.6), stripped=(0.5, 0.5, 0.6))
    assert "it counts punctuation" in verdict("tone", fallen)
    assert "it goes by formats" in verdict("field", fallen)
    never_better = head((0.5, 0.5, 0.6), stripped=(0.4, 0.5, 0.6))
    assert "punctuation" not in verdict("tone", never_better)


def test_shares_of_nothing_are_no_data() -> None:
    measured = head((0.5, 0.5, 0.4))
    measured["sure"] = {"documents": 0, "accuracy": dict.fromkeys(("head", "majority")), "macro_f1": {}}
    row = score_rows("field", measured)[1]
    assert {row[f"accuracy: {name}"] for name in ("head", "majority", "bag of words")} == {"no data"}
    sizes = {"documents": 100, "read_tokens": 254, "train_documents": 5000, "train_shards": 16}
    text = "\n".join(heads_sections({**sizes, "tone": measured, "field": measured}))
    assert "| law | 3 | 0 | no data | no data |" in text
    assert "No document, here or in training, has the label `software`, `politics`." in text
    assert "| software" not in text
    assert "5,000 documents out of 16 shards" in text


def test_context_layers_that_do_not_act_are_said_to_predict_only() -> None:
    context = {
        "window": 64, "documents": 32, "min_tokens": 128, "queries": 256, "influence": 0.004, "acts": False,
        "spearman": {"importance": [0.25, None], "urgency": [0.5, None]},
        "largest_gain": {"decay": [0.0, 0.004], "drop": [0.001, 0.0], "write": [0.0, 0.0]},
    }  # fmt: skip
    text = "\n".join(context_sections(context))
    assert (
        "| superblock | importance | urgency | largest drop gain | largest decay gain | largest write gain |"
        in text
    )
    assert "| 1 | 0.2500 | 0.5000 | 0.0010 | 0.0000 | 0.0000 |" in text
    assert "| 2 | no data | no data | 0.0000 | 0.0040 | 0.0000 |" in text
    assert "0.0040: the layer does not act" in text
    acting = "\n".join(context_sections({**context, "influence": 0.4, "acts": True}))
    assert "does not act" not in acting


def test_models_without_either_have_no_sections() -> None:
    assert world_sections({"subsets": []}) == []
