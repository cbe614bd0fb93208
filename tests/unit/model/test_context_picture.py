"""The data of the context picture, and a page that no token can break."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from model.families.world.context.layer import ContextScores
from model.families.world.measurements.picture import context_page, context_payload

NASTY = [
    "</script><script>alert(1)</script>",
    "<!--",
    "a\nb",
    '"',
    "&amp;",
    "",
    "\u2028",
    "ğ",
    "]]>",
    "<b>",
    "\\u003c",
]


def scores_of(length: int, drop_gain: float = 0.0) -> ContextScores:
    drop = torch.zeros(2, 4)
    drop[1, 3] = drop_gain
    return ContextScores(torch.rand(1, length), torch.rand(1, length), drop, torch.zeros(2, 4), torch.zeros(6, 4))


class Page(HTMLParser):
    """What a browser would make of a page: elements, the scripts' content and the tokens' text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "input"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] += data
        elif "span" in self.inside:
            self.text += data


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_payload_has_the_scores_of_every_token_and_superblock() -> None:
    scores = [scores_of(3), scores_of(3, drop_gain=0.4)]
    payload = context_payload(["a", "b", "c"], scores)
    assert payload["tokens"] == ["a", "b", "c"]
    assert payload["superblocks"] == 2
    for number, score in enumerate(scores):
        assert payload["importance"][number] == pytest.approx(score.importance_BT[0].tolist(), abs=5e-4)
        assert payload["urgency"][number] == pytest.approx(score.urgency_BT[0].tolist(), abs=5e-4)
        assert torch.tensor(payload["quadrants"][number]).shape == (3, 4)
        for token, quadrants in enumerate(payload["quadrants"][number]):
            assert sum(quadrants) == pytest.approx(1, abs=2e-3)  # four numbers rounded to 3 decimals
            assert quadrants[0] == pytest.approx(
                payload["importance"][number][token] * payload["urgency"][number][token], abs=2e-3
            )
    assert payload["gains"] == {"drop": [0.0, 0.05], "decay": [0.0, 0.0], "write": [0.0, 0.0]}
    assert payload["influence"] == 0.4
    assert payload["spearman"] is None


def test_payload_is_plain_json_with_three_decimals() -> None:
    spearman = {"importance": [0.12345, math.nan], "urgency": [-0.5, 1.0]}
    payload = context_payload(["a"], [scores_of(1), scores_of(1)], spearman)
    assert json.loads(json.dumps(payload, allow_nan=False)) == payload
    assert payload["spearman"] == {"importance": [0.123, None], "urgency": [-0.5, 1.0]}
    assert all(len(number) <= 3 for number in re.findall(r"\.(\d+)", json.dumps(payload)))


def test_payload_refuses_scores_of_other_tokens() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 2 tokens of one text, found \[\(1, 3\)\]"):
        context_payload(["a", "b"], [scores_of(3)])
    with pytest.raises(ValueError, match="found none"):
        context_payload(["a"], [])


def test_page_shows_nasty_tokens_as_text_and_keeps_its_data() -> None:
    payload = context_payload(NASTY, [scores_of(len(NASTY))])
    page = Page(context_page(payload))
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert json.loads(page.scripts[0]) == payload
    assert page.text == "".join(NASTY).replace("\n", "↵\n")
    assert not {"b", "alert"} & {tag for tag, _ in page.elements}
    assert page.inside == []


def test_page_loads_nothing_from_elsewhere() -> None:
    page = context_page(context_payload(["a"], [scores_of(1)]))
    attributes = {name for _, attributes in Page(page).elements for name in attributes}
    assert not attributes & {"src", "href", "srcset", "data", "action"}
    assert "@import" not in page
    assert "url(" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_page_says_what_its_numbers_are_of() -> None:
    page = context_page(context_payload(["a", "b"], [scores_of(2)]))
    assert "one text only, as far as it was read: its first 2 tokens" in page
    assert all(f'"{name}"' in page for name in ("mean membership", "by colour", "mean drop gain"))


@pytest.mark.parametrize(("gain", "idle"), [(0.0, True), (0.009, True), (0.01, False), (0.4, False)])
def test_page_says_whether_the_layer_acts(gain: float, idle: bool) -> None:
    page = context_page(context_payload(["a"], [scores_of(1, drop_gain=gain)]))
    assert ("Scores are predictions only; the layer does not act yet." in page) == idle
    assert f"{gain:.3f}" in page
