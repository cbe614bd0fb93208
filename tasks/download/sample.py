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
        self.listed: Counter[str] = Counter()
        """Files of each split that there are, once they were chosen from."""

    def choose(self, names: Iterable[str]) -> list[str]:
        """Return the names of a share of the files of each split, one at least, spread evenly over their order."""
        names = list(names)
        chosen: set[str] = set()
        for split in SPLITS:
            members = [name for name in names if self.split_of(name) == split]
            self.listed[split] = len(members)
            count = min(len(members), max(1, round(self.share * len(members))))
            chosen.update(members[index * len(members) // count] for index in range(count))
        return [name for name in names if name in chosen]

    def cut(self, split: str, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the chosen files of a split, each ending with the record in which its share of the text ends.

        They stand for all files of the split, of which nothing but the number is known.
        """
        if self.share == 1:
            return list(files)
        held = sum(file.text_bytes for file in files)
        least = LEAST_TRAIN_BYTES if split == TRAIN else LEAST_HELD_OUT_BYTES
        wanted = max(least, round(self.share * held * self.listed[split] / len(files)))
        if wanted >= held:
            return list(files)
        return [replace(file, text_bytes=file.text_bytes * wanted // held) for file in files]
