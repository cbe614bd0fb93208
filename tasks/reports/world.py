"""The sections of report.md and of the model card on classification heads and context layers."""

from collections.abc import Mapping
from typing import Any

from storage.formats.probes import PROBE_KINDS
from tasks.core.markdown import table

METHODS = {"head": "head", "majority": "majority", "bag_of_words": "bag of words"}
"""Names in metrics.json -> columns."""

NO_DATA = "no data"

NOT_TRAINED = (
    "The model has heads for tone and field, but they are untrained: its training data was packed without probe "
    "tokens (`pack.probe_tokens`)."
)

HEADS = """\
Behind a document stand two probe tokens, at which one head tells the tone of its text and one its field of
knowledge. They were asked about the {documents:,} scored documents of at least 64 tokens, each cut to its first
{read_tokens:,} tokens. The labels are weak: tones come from counting rules over the first 1,000 tokens, which
abstain when in doubt; the field is the collection that a document is from, and its format gives that away (LaTeX,
citations, the syntax of code). No person labelled anything: accuracy is agreement with the rules.

Beside each number stand two baselines on the same documents. `majority` always names the commonest label of the
training documents; `bag of words` is a logistic regression on lowercased words, without their order and without
punctuation. Both learned from {train_documents:,} documents out of {train_shards:,} shards of the train split,
labelled and cut in the same way. Macro-F1 is the mean over the classes that occur among the documents. Not
measured: a field head that has not seen one of its collections (leave one subset out), and agreement with human
labels."""

REMOVED = {"tone": "without ? and !", "field": "without markup, citations and addresses"}
"""What the text lacks when the heads are asked again."""

SUSPICION = {
    "tone": "Without ? and ! the head does no better than the majority class: it counts punctuation.",
    "field": "Without markup the head does no better than the majority class: it goes by formats.",
}

CONTEXT = """\
A context layer at the start of each superblock predicts for every token how much later tokens will look at it:
from more than {window:,} tokens away (importance) and from nearer (urgency). The table compares that with the
attention of the superblock's last attention layer by Spearman's rank correlation, the mean over {documents:,}
held-out documents of at least {min_tokens:,} tokens ({queries:,} random queries of each, or all it has): 1 is the
same order, 0 none. A gain is how far the layer acts on what it predicts: the largest of the superblock's heads."""


def world_sections(metrics: Mapping[str, Any]) -> list[str]:
    """Return the sections for what a model has of heads and context layers, as Markdown."""
    heads = heads_sections(metrics["heads"]) if "heads" in metrics else []
    return heads + (context_sections(metrics["context"]) if "context" in metrics else [])


def measured_kinds(heads: Mapping[str, Any] | None) -> list[str]:
    """Return the kinds of heads that were measured."""
    return [kind for kind in PROBE_KINDS if heads and kind in heads]


def heads_sections(heads: Mapping[str, Any] | None) -> list[str]:
    """Return what `tasks.evaluate.heads` measured; None stands for untrained heads."""
    if heads is None:
        return ["## Tone and field heads", NOT_TRAINED]
    sections = ["## Tone and field heads", HEADS.format(**heads)]
    for kind in measured_kinds(heads):
        head = heads[kind]
        sections += [f"### {kind.capitalize()}", table(score_rows(kind, head)), verdict(kind, head)]
        sections += class_sections(head)
    return sections


def score_rows(kind: str, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return accuracy and macro-F1 of the three methods on all labelled documents and on parts of them."""
    names = {
        "all": "labelled",
        "sure": "labelled, head at least 50 % sure",
        "enough": f"labelled, at least 64 tokens {REMOVED[kind]}",
        "stripped": f"the same documents, read {REMOVED[kind]}",
    }
    return [
        {
            "documents": name,
            "number": head[row]["documents"],
            **{f"accuracy: {column}": _value(head[row]["accuracy"], method) for method, column in METHODS.items()},
            **{f"macro-F1: {column}": _value(head[row]["macro_f1"], method) for method, column in METHODS.items()},
        }
        for row, name in names.items()
    ]


def verdict(kind: str, head: Mapping[str, Any]) -> str:
    """Return in sentences what the numbers of a head amount to."""
    number, accuracy = head["all"]["documents"], head["all"]["accuracy"]
    if not number:
        return "No scored document has a label: no data."
    sentences = [_comparison(accuracy), f"The majority class is `{head['majority']}`."]
    abstained = f"{100 * head['abstained']:.1f} %"
    sentences.append(f"On {abstained} of the documents the head is less than 50 % sure: it abstains.")
    # Half the width of the widest 95 % interval, at an accuracy of one half.
    sentences.append(f"With {number:,} documents an accuracy is uncertain by up to {0.98 / number**0.5:.2f}.")
    before, after = head["enough"]["accuracy"], head["stripped"]["accuracy"]
    known = head["enough"]["documents"] and "majority" in before
    if known and before["head"] > before["majority"] and after["head"] <= after["majority"]:
        sentences.append(SUSPICION[kind])
    return " ".join(sentences)


def class_sections(head: Mapping[str, Any]) -> list[str]:
    """Return the table of the classes that are labels anywhere, and a line with the others."""
    rows = class_rows(head)
    known = [row for row in rows if row["labels in training"] or row["labels"]]
    unknown = [f"`{row['class']}`" for row in rows if row not in known]
    sections = [table(known)] if known else []
    return sections + (
        [f"No document, here or in training, has the label {', '.join(unknown)}."] if unknown else []
    )


def class_rows(head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per class: how often it is a label, and what share of those documents is found."""
    return [
        {
            "class": row["class"],
            "labels in training": row["train_documents"],
            "labels": row["documents"],
            "recall: head": _value(row["recall"], "head"),
            "recall: bag of words": _value(row["recall"], "bag_of_words"),
        }
        for row in head["classes"]
    ]


def context_sections(context: Mapping[str, Any]) -> list[str]:
    """Return what `tasks.evaluate.context` measured."""
    gains, largest = context["largest_gain"], context["influence"]
    acts = f"The largest gain of all is {largest:.4f}: " + (
        "the layer weakens dropped and ageing delegated tokens."
        if context["acts"]
        else "the layer does not act, its scores are predictions only."
    )
    rows = [
        {
            "superblock": number + 1,
            **{
                name: _value({name: context["spearman"][name][number]}, name) for name in ("importance", "urgency")
            },
            **{f"largest {name} gain": gains[name][number] for name in ("drop", "decay", "write")},
        }
        for number in range(len(gains["drop"]))
    ]
    picture = "`context.html` beside the evaluation report shows the scores on the beginning of one document."
    return ["## Context layer", CONTEXT.format(**context), table(rows), f"{acts} {picture}"]


def _comparison(accuracy: Mapping[str, float]) -> str:
    if "majority" not in accuracy:
        return "No training document has a label, so there is no baseline and the head has learned nothing."
    head, majority, words = (accuracy[name] for name in METHODS)
    if head <= majority:
        return "The head agrees with the labels no better than one that always names the commonest."
    if head <= words:
        return "The head tells more than the commonest label, but no more than the words alone do."
    return "The head does better than both baselines."


def _value(values: Mapping[str, float | None], name: str) -> float | str:
    found = values.get(name)
    return NO_DATA if found is None else found
