"""Texts without the marks that tell where they come from."""

import pytest

from tasks.evaluate.stripped_text import without_markup, without_question_marks


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (r"Let $x \in A$ be \emph{small} \cite{smith2010}.", "Let be small ."),
        ("\\begin{theorem}\nIt holds.\n\\end{theorem}", "It holds."),
        (r"As \[ a^2 + b^2 \] shows", "As shows"),
        (
            "shown before [3-5, 7], (Smith et al., 2010; Lee 2011) and (2012) in Fig. 3a.",
            "shown before , and in .",
        ),
        ("see https://example.org/a?b=1 or www.example.org, mail me@example.org", "see or mail"),
        ('<p class="x">one &amp; two</p><!-- three -->', "one two"),
        ("## Title\n\n* a **bold** `word`\n* a [link](http://a.b/c)", "Title\n\na bold word\na link"),
        ("Title\n=====\n\n:func:`run` of {{wiki}} and [[page]]", "Title\n\nrun of wiki and page"),
        ("Message-ID: <1@x>\nFrom: Ann\nSubject: tea\n\nDear Ben", "Dear Ben"),
        ("A price of 5 (five) in 1999 stays, 3 < 4 too.", "A price of 5 (five) in 1999 stays, 3 < 4 too."),
    ],
)
def test_without_markup_keeps_the_words(text: str, left: str) -> None:
    assert without_markup(text) == left


def test_without_markup_is_done_when_repeated() -> None:
    text = r"# One $a$ \two{three} [4] <b>five</b> ((six, 2001))"
    assert without_markup(without_markup(text)) == without_markup(text)


def test_without_question_marks_ends_sentences_as_before() -> None:
    assert without_question_marks("Why?! Go!!! It is 3.5. Ok?") == "Why. Go. It is 3.5. Ok."


@pytest.mark.parametrize("piece", ["[1 ", "(", "$", "\\[", "<!--", "a.", "=", " ", "\n ", "*", "{", "[11111", "-"])
def test_hostile_text_ends(piece: str) -> None:
    without_markup(piece * 20_000)
