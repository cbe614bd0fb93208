"""Text without what gives a label away: the format, which names its source, or the marks that the rules count.

A head whose accuracy falls on such text had read the format and not the content.
"""

import re

_REMOVED = [
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"\]\([^()\s]*\)|:[a-z]+:(?=`)", 0),  # targets of Markdown's links, roles of reStructuredText
        (r"(?:https?://|\bwww\.|\bdoi:|\barxiv:)[^\s()<>\]]+", re.IGNORECASE),
        (r"\b[\w.+-]{1,64}@[\w-]+\.[\w.]+", 0),
        (r"^(?:Message-ID|Date|From|To|Cc|Bcc|Subject|Mime-Version|Content-[\w-]+|X-[\w-]+):.*$", re.MULTILINE),
        (r"<!--.{0,1000}?-->|</?[A-Za-z][^<>\n]*>|&(?:[a-z]{2,8}|#\d{1,5});", re.DOTALL),  # HTML
        # LaTeX: formulas, beginnings and ends of environments, commands; the text in their braces stays.
        (r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,500}?\\\)", re.DOTALL),
        (r"\$[^$\n]{1,200}\$", 0),
        (r"\\(?:begin|end|cite\w*|ref|eqref|label|usepackage|documentclass)\*?(?:\[[^\]\n]*\])?\{[^{}\n]*\}", 0),
        (r"\\[A-Za-z]+\*?|\\[^\w\s]", 0),
        # Citations and cross-references: [3-5, 7], [@smith2010], (Smith et al., 2010; Lee 2011), (2010), Fig. 3
        (r"\[\d[\d\s,;–-]*\]|\[@[^\]\n]*\]|\{#[^}\n]*\}|\[\^\w+\]", 0),
        (r"\([^()\n]{0,200}\b(?:19|20)\d\d[a-z]?\)|\bet al\.?", 0),
        (r"\b(?:Figs?|Figures?|Tables?|Eqs?|Sections?|Ref)\.? ?\d+[a-z]?", 0),
        # Marks of wikis, Markdown and reStructuredText.
        (r"^[ \t]*(?:#{1,6}|[=~^*+-]{2,}|[-*+>]|\.\. [\w-]+::|={2,6})[ \t]*", re.MULTILINE),
        (r"(?<![=~^*+-])(?:={2,6}|[=~^*+-]{4,})[ \t]*$", re.MULTILINE),
        (r"\*\*|__|``?`?|\[\[|\]\]|\{\{|\}\}|[\[\]{}|\\$]", 0),
    )
]
_SPACES = re.compile(r"[ \t]+")
_LINE_ENDS = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{3,}")


def without_markup(text: str) -> str:
    """Return a text without LaTeX, HTML, wiki and Markdown marks, citations, addresses and mail headers.

    A rough cut by patterns: it takes a little text with it, and what remains may still tell its source.
    """
    for pattern in _REMOVED:
        text = pattern.sub(" ", text)
    return _EMPTY_LINES.sub("\n\n", _LINE_ENDS.sub("\n", _SPACES.sub(" ", text))).strip()


def without_question_marks(text: str) -> str:
    """Return a text in which every mark of a question or an exclamation is a full stop."""
    return re.sub(r"[?!]+", ".", text)
