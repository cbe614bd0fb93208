"""Where in a text stands what decided about it, for people who look at single documents.

What decides is `judge_document` and the shingles; here their work is done again, place by place.
"""

import re
from collections.abc import Iterator
from functools import cache

from datatrove.utils.text import NUMBERS_PATTERN, PUNCTUATION, TextNormConfig, simplify_text

from tasks.filter.characters import is_alone
from tasks.filter.config import FilterConfig
from tasks.filter.rules.base import judge_document
from tasks.filter.rules.places import Place, lowered, merged
from tasks.filter.rules.registry import make_rule


def decisive_places(config: FilterConfig, subset: str, text: str, rule: str) -> tuple[str, list[Place]]:
    """Return the text of a dropped document as the rule of this name saw it, and the places it was dropped for.

    Rules before that one may have rewritten it.
    """
    policy = config.policy(subset)
    rules = [make_rule(each) for each in policy.rules]
    view, drop, *_ = judge_document(rules, text, keep_numbers=policy.keep_numbers)
    for asked in rules:
        if drop is not None and asked.config.rule == rule and asked.judge(view) == drop:
            whole = len(view.text)
            return view.text, merged((max(begin, 0), min(end, whole)) for begin, end in asked.places(view, drop))
    return view.text, []


def common_places(
    config: FilterConfig, one: tuple[str, str], other: tuple[str, str]
) -> tuple[list[Place], list[Place]]:
    """Return where in each of two documents, given as (subset, text), stand the shingles that both have.

    Documents with fewer words than a shingle have none.
    """
    size = config.shingles.words
    both = [list(normalised_words(text, config.policy(subset).keep_numbers)) for subset, text in (one, other)]
    runs = [
        {place: tuple(word for word, _ in words[place : place + size]) for place in range(len(words) - size + 1)}
        for words in both
    ]
    common = set(runs[0].values()) & set(runs[1].values())
    first, second = (
        merged(
            (words[place][1][0], words[place + size - 1][1][1]) for place, run in places.items() if run in common
        )
        for words, places in zip(both, runs, strict=True)
    )
    return first, second


def normalised_words(text: str, keep_numbers: bool) -> Iterator[tuple[str, Place]]:
    """Yield the words that shingles are made of, in datatrove's normal form, and where each stands in the text."""
    form = TextNormConfig(norm_numbers=not keep_numbers)
    lower, origins = lowered(text)
    for match in _between_marks(keep_numbers).finditer(lower):
        for begin, end in _apart(lower, *match.span()):
            if word := simplify_text(lower[begin:end], form):
                yield word, (origins[begin], origins[end - 1] + 1)


def _apart(text: str, begin: int, end: int) -> Iterator[Place]:
    """Yield the parts of a word: of a script without blanks each character."""
    for place in range(begin, end):
        if _is_word(text[place]):
            yield begin, place
            yield place, place + 1
            begin = place + 1
    yield begin, end


@cache
def _is_word(character: str) -> bool:
    """Tell whether a character is a word by itself; its normal form is what counts."""
    return is_alone(form) if len(form := simplify_text(character)) == 1 else False


@cache
def _between_marks(keep_numbers: bool) -> re.Pattern[str]:
    """Return what finds words between white space and punctuation; a number is one word, its decimal mark too."""
    other = rf"[^\s{re.escape(PUNCTUATION)}]"
    number = NUMBERS_PATTERN.pattern.replace(r"\p{Nd}", r"\d")  # the same digits, in the words of `re`
    return re.compile(f"{other}+" if keep_numbers else f"(?:{number}|{other})+")
