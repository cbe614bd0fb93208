"""Documents, policies and pages that the tests of trials share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import orjson

from flows.recipes.reading import find_recipe
from flows.recipes.schema import Recipe
from flows.trial.sample import Sample
from flows.trial.verdicts import Trial, Verdict, try_out
from storage.formats.documents import Document

PROSE = "The cat and the dog sat on the mat, and then they had to be off to the house of the owl. "
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
STORY = "This is the story of " + " ".join(f"{first}-{second}" for first in NUMBERS for second in NUMBERS) + "."
HOSTILE = (
    "</pre><script>alert(1)</script><img src=x onerror=alert(2)> \"'&lt; \x00\x1b[31m \u202e abc </mark> " * 3
)


JUDGES: dict[str, object] = {
    "filter.policies.few": {"rules": [{"rule": "length", "min_words": 5}]},
    "filter.policies.source": {"rules": [{"rule": "length", "min_characters": 50}, {"rule": "code"}]},
    "filter.policies.running": {"rules": [{"rule": "gopher-quality"}, {"rule": "gopher-repetition"}]},
    "filter.policies.all": {"rules": [], "near_duplicates": False, "keep_numbers": True},
    "filter.subsets": {"Code": "source", "Prose": "running", "Anything": "all"},
    "filter.default_policy": "few",
}
"""Policies of our own: the defaults may change."""


def write_jsonl(path: Path, documents: Sequence[tuple[str, str]]) -> Path:
    lines = [orjson.dumps({"text": text, "meta": {"pile_set_name": subset}}) for subset, text in documents]
    path.write_bytes(b"\n".join(lines))
    return path


def recipe_of(**overrides: object) -> Recipe:
    return find_recipe("pile", {"dedup": None, **JUDGES, **overrides})


def tried(documents: Sequence[tuple[str, str]], **overrides: object) -> list[Verdict]:
    return trial_of(documents, **overrides).verdicts


def trial_of(documents: Sequence[tuple[str, str]], name: str = "pile", **overrides: object) -> Trial:
    sample = [Document(f"f:{n}", subset, text) for n, (subset, text) in enumerate(documents)]
    return replace(try_out(recipe_of(**overrides), Sample(sample, files=1)), recipe=name)


class Page(HTMLParser):
    """The elements of a page, and the texts of its <pre> and <mark>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.texts: list[str] = []
        self.marks: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        {"pre": self.texts, "mark": self.marks}.get(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "pre" in self.inside:
            self.texts[-1] += data
        if "mark" in self.inside:
            self.marks[-1] += data
