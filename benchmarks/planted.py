"""Corpora with planted copies of known kinds, among real documents that are unlike each other."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.exhaustive import shingles
from benchmarks.filter_dedup import texts
from storage.formats.documents import Document

UNLIKE = 0.05
"""Most Jaccard similarity of two documents before anything is planted."""
WORDS = (150, 1500)
"""Fewest and most words of a document that copies are made of."""
CHAIN = 10
"""Documents of a chain behind its first one, each 5 % edited from the one before."""


@dataclass
class Planted:
    """The documents, and which pairs are copies of which kind."""

    train: list[Document] = field(default_factory=list)
    val: list[Document] = field(default_factory=list)
    pairs: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Kind -> (id of the original, id of the copy)."""


def plant(folder: Path, of_each: int, chance: random.Random) -> Planted:
    """Return originals that are unlike each other, and copies of them in a random order."""
    kinds: dict[str, Callable[[str], str]] = {
        "exact": lambda text: text,
        "whitespace": lambda text: "\n ".join(text.split(" ")),
        "case": str.upper,
        **{f"{percent}": edits(percent / 100, chance) for percent in (1, 3, 5, 10)},
        "containment": middle,
    }
    bases = unlike(folder, of_each * (2 * len(kinds) + 1))
    planted = Planted()
    for number, (kind, copy) in enumerate(kinds.items()):
        for held_out in (False, True):
            first = (2 * number + held_out) * of_each
            for base in bases[first : first + of_each]:
                twin = Document(f"{base.id}-{kind}", "all", copy(base.text))
                planted.train += [base] if held_out else [base, twin]
                planted.val += [twin] if held_out else []
                planted.pairs[f"held-out {kind}" if held_out else kind].append((base.id, twin.id))
    for base in bases[2 * len(kinds) * of_each :]:
        chain = [base]
        for step in range(CHAIN):
            chain.append(Document(f"{base.id}-chain{step}", "all", edits(0.05, chance)(chain[-1].text)))
        planted.train += chain
    chance.shuffle(planted.train)
    return planted


def unlike(folder: Path, wanted: int) -> list[Document]:
    """Return documents of which no two are alike."""
    owners: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    found: list[Document] = []
    for text in texts(folder):
        if len(found) == wanted:
            return found
        if not WORDS[0] <= len(text.split()) <= WORDS[1]:
            continue
        grams = shingles(text)
        common = Counter(owner for gram in grams for owner in owners.get(gram, ()))
        if len(grams) < WORDS[0] // 2 or any(
            n / (len(grams) + sizes[owner] - n) > UNLIKE or n / min(len(grams), sizes[owner]) > UNLIKE
            for owner, n in common.items()
        ):
            continue
        for gram in grams:
            owners[gram].append(len(found))
        sizes.append(len(grams))
        found.append(Document(f"d{len(found)}", "all", text))
    raise SystemExit(f"{folder} must hold {wanted} documents that are unlike each other, found {len(found)}")


def edits(share: float, chance: random.Random) -> Callable[[str], str]:
    """Return a function that puts other words in place of a share of a text's words."""

    def edit(text: str) -> str:
        words = text.split(" ")
        for place in chance.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9)))
        return " ".join(words)

    return edit


def middle(text: str) -> str:
    """Return the middle third of a text."""
    words = text.split(" ")
    return " ".join(words[len(words) // 3 : 2 * len(words) // 3])


def pairs_of_similarity(bases: list[Document], similarity: float) -> Planted:
    """Return each base and a copy whose 5-gram Jaccard similarity with it is just above the wished one.

    The end of the copy is foreign: of n n-grams the first n - k are common, so that the similarity is
    (n - k) / (n + k).
    """
    planted = Planted()
    for base in bases:
        words = base.text.split()
        low, high = 0, len(words)  # words from the front that the copy keeps
        while low < high:
            half = (low + high) // 2
            if jaccard(base.text, _foreign_end(words, half)) >= similarity:
                high = half
            else:
                low = half + 1
        twin = Document(f"{base.id}-{similarity}", "all", _foreign_end(words, low))
        planted.train += [base, twin]
        planted.pairs["curve"].append((base.id, twin.id))
    return planted


def jaccard(first: str, second: str) -> float:
    """Return the similarity of two texts."""
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


def _foreign_end(words: list[str], kept: int) -> str:
    """Return a text that begins as another one and goes on with words that occur nowhere else."""
    return " ".join(
        [*words[:kept], *(f"{word}q{'abcdefghij'[place % 10]}z" for place, word in enumerate(words[kept:]))]
    )
