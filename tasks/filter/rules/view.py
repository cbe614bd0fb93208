"""What rules see of a document."""

from functools import cache
from typing import TYPE_CHECKING

from tasks.filter.lazy import lazy

if TYPE_CHECKING:
    from tasks.filter.words import DocumentWords


class DocumentView:
    """The text of a document and what rules ask about it, each computed once, when the first of them asks.

    What it returns belongs to all rules: none may change it.
    """

    def __init__(self, text: str, *, keep_numbers: bool = False) -> None:
        self.text = text
        self.keep_numbers = keep_numbers

    @lazy
    def characters(self) -> int:
        """Length without the white space around the text."""
        return len(self.text.strip())

    @lazy
    def lines(self) -> tuple[str, ...]:
        """The lines without their ends, as `str.splitlines` finds them."""
        return tuple(self.text.splitlines())

    @lazy
    def paragraphs(self) -> tuple[str, ...]:
        """What stands between empty lines."""
        parts = (part.strip("\n") for part in self.text.strip().split("\n\n"))
        return tuple(part for part in parts if part)

    @lazy
    def words(self) -> "DocumentWords":
        """What stands between white space, with lengths, letters and hashes of each word."""
        return _document_words()(self.text, keep_numbers=self.keep_numbers)


@cache
def _document_words() -> "type[DocumentWords]":
    from tasks.filter.words import DocumentWords  # noqa: PLC0415 - datatrove, which planning does not need

    return DocumentWords
