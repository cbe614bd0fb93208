"""The page of a trial shows texts without being one, and marks what decided."""

import pytest

from flows.trial.marking import WHOLE, marked_html
from flows.trial.page import page
from tests.unit.flows.trials import HOSTILE, STORY, Page, trial_of


def test_twin_is_the_kept_document_of_the_filter() -> None:
    longer = f"{STORY} And so on."
    trial = trial_of([("Code", "x"), ("Prose", STORY), ("Code", "y"), ("Prose", longer)], dedup={})
    dropped = trial.verdicts[3]
    assert [each.stage for each in trial.verdicts] == ["filter", "", "filter", "dedup"]
    assert dropped.drop is not None
    assert dropped.twin is not None
    assert (dropped.drop.rule, dropped.twin.id, dropped.twin.text) == ("near", "f:1", STORY)
    assert Page(page(trial)).marks == [STORY[:-1], STORY[:-1]]


def test_equal_texts_are_marked_as_a_whole_however_short() -> None:
    trial = trial_of([("Anything", "1 + 1 = 2"), ("Anything", "1 + 1\n= 2")], dedup={})
    assert Page(page(trial)).marks == ["1 + 1\n= 2", "1 + 1 = 2"]


def test_similarity_is_that_of_the_words_that_are_marked() -> None:
    words = [f"word{number:c}" for number in range(97, 123)]
    texts = [" ".join(words), " ".join([*words[:13], "another", *words[13:]])]
    trial = trial_of([("Anything", STORY), *(("My own", text) for text in texts)], dedup={})
    drop = trial.verdicts[2].drop
    assert drop is not None
    assert drop.value == pytest.approx(18 / 27, abs=1e-6)  # of 22 and 23 runs of five words 18 are common
    assert Page(page(trial)).marks == [" ".join(words[:13]), " ".join(words[13:])] * 2


def test_hostile_texts_are_shown_and_nothing_else() -> None:
    documents = [
        ("Code", HOSTILE + "x" * 1001),
        (f"My own{HOSTILE}"[:200], HOSTILE),
        ("Code", "\n\nx = 1\n" * 9),
    ]
    shown = Page(page(trial_of(documents, f"pile{HOSTILE}")))
    names = [tag for tag, _ in shown.tags]
    assert names.count("script") == 1
    assert "img" not in names
    assert names.count("pre") == names.count("details") == 3
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert not [name for _, attributes in shown.tags for name in attributes if name in ("src", "href")]
    texts = [text.translate({0x2400: 0, 0x241B: 0x1B}).removeprefix("\n") for text in shown.texts]
    assert sorted(texts) == sorted(text for _, text in documents)
    assert shown.marks == [(HOSTILE + "x" * 1001).translate({0: 0x2400, 0x1B: 0x241B})]


def test_page_runs_nothing_but_its_own_script() -> None:
    text = page(trial_of([("Code", "x")]))
    [policy] = [a["content"] for tag, a in Page(text).tags if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_long_text_is_cut_but_where_it_is_marked() -> None:
    text = "a" * 50_000 + "HERE" + "b" * 50_000
    shown = Page(f"<pre>{marked_html(text, [(50_000, 50_004)])}</pre>")
    assert shown.marks == ["HERE"]
    assert len(shown.texts[0]) < WHOLE
    assert "49,400 characters" in shown.texts[0]
    assert "49,800 characters" in shown.texts[0]


def test_long_place_and_many_places_are_cut() -> None:
    one = Page(f"<pre>{marked_html('x' * 1_000_000, [(0, 1_000_000)])}</pre>")
    many = Page(f"<pre>{marked_html('x ' * 100_000, [(n, n + 1) for n in range(0, 200_000, 2)])}</pre>")
    assert len(one.texts[0]) < WHOLE
    assert len(many.texts[0]) < 2 * WHOLE


def test_marked_white_space_is_seen() -> None:
    assert marked_html("a\n\nb", [(1, 3)]) == "a<mark>↵\n↵\n</mark>b"
