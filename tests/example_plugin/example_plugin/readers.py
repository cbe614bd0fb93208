"""A reader of Markdown: every paragraph is a document."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from storage.formats.documents import Document
from storage.sources.readers.base import DEFAULT_COLUMNS, Columns, Item, Reader, bad_line, not_utf8
from storage.sources.readers.lines import read_lines


class ParagraphsReader(Reader):
    """Reads `.md` by lines: one paragraph per line, as editors with soft line breaks write it."""

    name = "paragraphs"
    version = 1
    suffixes = (".md",)

    @classmethod
    def example(
        cls, path: Path, texts: Sequence[str], columns: Columns = DEFAULT_COLUMNS
    ) -> list[tuple[int, str | None]]:
        """Write a line per text and, behind the first, one that is not UTF-8."""
        lines = [text.encode() for text in texts]
        lines.insert(1, b"\xff")
        path.write_bytes(b"\n".join(lines))
        offsets = accumulate((len(line) + 1 for line in lines[:-1]), initial=0)
        return list(zip(offsets, [texts[0], None, *texts[1:]], strict=True))

    def read(self, path: Path, name: str, columns: Columns, wanted: Callable[[int], bool]) -> Iterator[Item]:
        """Yield the wanted paragraphs."""
        for number, offset, line in read_lines(path):
            if wanted(offset) and line.strip():
                reason = not_utf8(line)
                yield (
                    offset,
                    bad_line(name, number, offset, reason, line)
                    if reason
                    else Document(f"{name}:{number}", columns.subset, line.decode()),
                )
