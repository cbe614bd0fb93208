"""A part of a corpus that stands for all of it, to try a recipe out before weeks of work."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from storage.formats.documents import SPLITS, TRAIN
from storage.sources.checked_files import SourceFile

LEAST_TRAIN_BYTES = 4_000_000
"""Training text that is taken in any case: with less, a tokenizer and a model have nothing to learn from."""

LEAST_HELD_OUT_BYTES = 100_000
"""The same for splits that only measure."""


class Sample:
    """Takes a share of the text: some files of each split, and their beginnings if that is still too much."""

    def __init__(self, share: float, split_of: Callable[[str], str]) -> None:
        self.share = share
        self.split_of = split_of
        self.files_share = share
        """Share of the files: more than that of the text if there are few or small ones."""
        self.listed: Counter[str] = Counter()
        """Files of each split that there are, once they were chosen from."""

    def widen(self, files: Sequence[SourceFile]) -> bool:
        """Tell whether these files hold too little of a split that has more; more are chosen then."""
        held = Counter(dict.fromkeys(self.listed, 0))
        for file in files:
            held[self.split_of(file.name)] += file.text_bytes
        chosen = Counter(self.split_of(file.name) for file in files)
        more = any(held[s] < _least(s) and chosen[s] < self.listed[s] for s in self.listed)
        self.files_share = min(1.0, 4 * self.files_share) if more else self.files_share
        return more

    def choose(self, names: Iterable[str]) -> list[str]:
        """Return the names of a share of the files of each split, one at least, spread evenly over their order."""
        names = list(names)
        chosen: set[str] = set()
        for split in SPLITS:
            members = [name for name in names if self.split_of(name) == split]
            self.listed[split] = len(members)
            count = min(len(members), max(1, round(self.files_share * len(members))))
            chosen.update(members[index * len(members) // count] for index in range(count))
        return [name for name in names if name in chosen]

    def cut(self, split: str, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the chosen files of a split, each ending with the record in which its share of the text ends.

        They stand for all files of the split, of which nothing but the number is known.
        """
        if self.share == 1:
            return list(files)
        held = sum(file.text_bytes for file in files)
        wanted = max(_least(split), round(self.share * held * self.listed[split] / len(files)))
        if wanted >= held:
            return list(files)
        return [replace(file, text_bytes=file.text_bytes * wanted // held) for file in files]


def _least(split: str) -> int:
    return LEAST_TRAIN_BYTES if split == TRAIN else LEAST_HELD_OUT_BYTES
