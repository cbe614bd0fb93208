"""Text that a person would keep, of kinds that rules for prose easily drop; found or made on any machine."""

import gzip
import importlib
import os
import pydoc
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

from storage.sources.python_environment.texts import (
    DESCRIPTIONS,
    DOCSTRINGS,
    LIBRARY_SOURCE,
    LICENCES,
    STDLIB_SOURCE,
    collect_texts,
)

TEXTS = Path(__file__).with_name("texts")
DOCUMENTED = """
abc argparse array ast base64 bisect bz2 calendar cmath cmd codecs collections configparser contextlib copy csv
dataclasses datetime decimal difflib dis email enum errno fnmatch fractions functools getopt gettext glob gzip
hashlib heapq html inspect io ipaddress itertools json locale logging math mimetypes operator os pathlib pickle
platform pprint queue random re sched secrets select shelve shlex shutil signal socket sqlite3 statistics string
struct subprocess tarfile tempfile textwrap threading time token tokenize trace types typing unicodedata uuid
warnings wave weakref zipfile zlib
"""
GENERATED = ("generated", "do not edit", "do not modify")
MANUAL = Path("/usr/share/man")
MOST_MANUAL_PAGES = 40
GOODS = (
    "Barley",
    "Candles",
    "Copper wire",
    "Flour",
    "Glass",
    "Hemp rope",
    "Iron nails",
    "Lamp oil",
    "Linen",
    "Salt",
)
TOWNS = ("Aldgate", "Birchfield", "Crownmoor", "Dunmere", "Eastwick", "Fernham", "Goldcrest", "Holt", "Ivybridge")
TABLES = 60
CHAPTERS = 60


@cache
def _installed(kind: str) -> list[str]:
    """Return texts of a kind that this Python installation carries."""
    return [text.text for text in collect_texts(6_000_000) if text.kind == kind]


def module_manuals() -> list[str]:
    """Return what `pydoc` shows of modules, laid out as manual pages are."""
    return [pydoc.plain(pydoc.render_doc(importlib.import_module(name))) for name in DOCUMENTED.split()]


def manual_pages() -> list[str]:
    """Return manual pages of this system as `man` shows them; of the modules alone where there are none."""
    pages = sorted(MANUAL.glob("man[1-8]/*.[1-8].gz"), key=lambda path: Random(path.name).random())
    if shutil.which("man") is None or shutil.which("col") is None:
        return module_manuals()
    shown = [_manual(page) for page in pages[: 2 * MOST_MANUAL_PAGES] if page.stat().st_size < 50_000]
    return [text for text in shown if len(text) > 300][:MOST_MANUAL_PAGES] + module_manuals()


def _manual(page: Path) -> str:
    if gzip.decompress(page.read_bytes()).startswith(b".so "):  # the name of another page
        return ""
    settings = {"MANWIDTH": "80", "MANPAGER": "cat", "MANROFFOPT": "-c", "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(["man", "-l", page], capture_output=True, env={**os.environ, **settings}, check=False)
    plain = subprocess.run(["col", "-b"], input=shown.stdout, capture_output=True, check=False)
    return plain.stdout.decode(errors="replace")


def licences() -> list[str]:
    """Return the licences of the packages that are installed."""
    return _installed(LICENCES)


def descriptions() -> list[str]:
    """Return the descriptions of those packages."""
    return _installed(DESCRIPTIONS)


def docstrings() -> list[str]:
    """Return pages that describe the functions of modules."""
    return _installed(DOCSTRINGS)


def code() -> list[str]:
    """Return source that a person wrote."""
    sources = _installed(STDLIB_SOURCE) + _installed(LIBRARY_SOURCE)
    return [text for text in sources if not any(word in text[:600].lower() for word in GENERATED)]


def poems() -> list[str]:
    """Return poems, and pairs of them: refrains, short lines, little punctuation."""
    single = [poem.strip() for poem in (TEXTS / "poems.txt").read_text().split("%\n")]
    return single + [f"{first}\n\n\n{second}" for first, second in pairwise(single)]


def chapters() -> list[str]:
    """Return chapters of some thousand words, put together from sentences of novels."""
    openings = [part.strip() for part in (TEXTS / "chapters.txt").read_text().split("%\n")]
    made = []
    for number in range(CHAPTERS):
        draw = Random(number)
        paragraphs = [_excerpt(draw, text) for text in draw.sample(openings, draw.randint(3, len(openings)))]
        made.append(f"CHAPTER {number + 1}\n\n" + "\n\n".join(paragraphs))
    return made + openings


def _excerpt(draw: Random, text: str) -> str:
    sentences = text.split(". ")
    begin = draw.randrange(len(sentences) // 2)
    return ". ".join(sentences[begin:]) if begin else text


def tables() -> list[str]:
    """Return tables in five layouts, of words and numbers, with and without a sentence above."""
    return [_table(Random(number), number % 5) for number in range(TABLES)]


def _table(draw: Random, layout: int) -> str:
    names = ["Town", "Goods", "Crates", "Price", "Remark"]
    remarks = ("as agreed with the carrier", "of the second quality", "paid", "to be weighed again", "none left")
    rows = [
        [draw.choice(TOWNS), draw.choice(GOODS), str(draw.randint(1, 900)), f"{draw.uniform(1, 99):.2f}", remark]
        for remark in draw.choices(remarks, k=draw.randint(12, 60))
    ]
    above = "What was delivered to the towns of the valley in that year, and at which price.\n\n"
    return above * draw.randint(0, 1) + "\n".join(_laid_out([names, *rows], layout)) + "\n"


def _laid_out(rows: list[list[str]], layout: int) -> list[str]:
    if layout == 0:
        return [",".join(row) for row in rows]
    if layout == 1:
        return ["\t".join(row) for row in rows]
    padded = [[f"{cell:<26}" for cell in row] for row in rows]
    if layout == 2:
        return ["".join(row).rstrip() for row in padded]
    if layout == 3:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return [lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]]
    rule = " ".join("=" * 26 for _ in rows[0])
    return [rule, " ".join(padded[0]), rule, *(" ".join(row) for row in padded[1:]), rule]


KEPT: dict[Callable[[], list[str]], tuple[str, ...]] = {
    manual_pages: ("reference", "mild"),
    licences: ("law", "mild"),
    chapters: ("books", "prose", "web", "multilingual", "mild"),
    tables: ("reference", "mild"),
    poems: ("prose", "books", "chat", "mild"),
    code: ("code",),
    descriptions: ("reference", "mild"),
    docstrings: ("reference", "mild"),
}
"""Kind -> the policies that must keep it."""
