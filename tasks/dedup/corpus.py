"""Which documents there are: those of the corpus, and those that earlier artifacts kept, numbered through."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact, Store
from storage.errors import CorruptFileError, InputError
from storage.formats.documents import TEST, TRAIN, VAL
from storage.formats.drops import DROPS, read_dropped
from storage.formats.shingles import SHINGLES, Hashes32, read_layout, read_shingles
from tasks.dedup.duplicates import Documents
from tasks.dedup.links import Numbers
from tasks.dedup.sketches import ROW, ShingleShard, Sketch

PRECEDENCE = (TEST, VAL, TRAIN)
"""Of duplicates the one of the earlier split is kept."""

STAGE = "dedup"
"""Name of the stage that wrote the earlier artifacts."""


@dataclass(frozen=True)
class NumberedShard:
    """A shard, and the number of its first document."""

    shingles: ShingleShard
    drops: StoredFile | None
    """What an earlier artifact left out of it; None for a shard of this corpus."""
    earlier: Artifact | None
    part: str
    rows: int
    begin: int

    @property
    def precedence(self) -> int:
        """Place of its split in PRECEDENCE."""
        return split_precedence(self.part)


class NumberedShards:
    """All shards, the earlier ones first; then test, val and train, each in the order of its parts."""

    def __init__(self, corpus: Artifact, against: Sequence[Artifact]) -> None:
        found: list[tuple[Artifact, StoredFile, Artifact | None, StoredFile | None]] = []
        for artifact in against:
            source, drops = _source(artifact), {file.part: file for file in artifact.files(DROPS)}
            found += [(source, file, artifact, drops[file.part]) for file in _in_order(source)]
        found += [(corpus, file, None, None) for file in _in_order(corpus)]
        rows = _rows([source.open(file) for source, file, _, _ in found], found)
        begins = np.cumsum([0, *rows])
        self._shards = [
            NumberedShard(
                ShingleShard(
                    source,
                    file,
                    f"sketch-{file.part}" if earlier is None else f"sketch-{earlier.manifest.key}-{file.part}",
                    file.part.startswith(TRAIN),
                ),
                drops,
                earlier,
                file.part,
                count,
                int(begin),
            )
            for (source, file, earlier, drops), count, begin in zip(found, rows, begins[:-1], strict=True)
        ]
        self.size = int(begins[-1])
        self._begins = begins

    def __iter__(self) -> Iterator[NumberedShard]:
        return iter(self._shards)

    @property
    def own(self) -> list[NumberedShard]:
        """The shards of this corpus."""
        return [shard for shard in self._shards if shard.earlier is None]

    @property
    def held_out(self) -> list[NumberedShard]:
        """The shards of held-out splits."""
        return [shard for shard in self._shards if not shard.shingles.may_hold]

    def held_out_shingles(self) -> Iterator[Hashes32]:
        """Yield the shingles of each document of the held-out shards, in order.

        None of one that is not there or repeats another: text that holds it holds that one too, and a page that
        occurs a thousand times would be found a thousand times in each of its training copies.
        """
        seen: set[bytes] = set()
        for shard in self.held_out:
            gone, row_of_shard = set(_dropped(shard).tolist()), 0
            for group in read_shingles(shard.shingles.corpus.open(shard.shingles.file)):
                for row in range(len(group)):
                    exact = group.exact[row].tobytes()
                    skipped = exact in seen or row_of_shard in gone
                    if row_of_shard not in gone:
                        seen.add(exact)
                    end = group.ends[row] if skipped else group.ends[row + 1]
                    yield group.shingles[group.ends[row] : end]
                    row_of_shard += 1

    def within(self, shard: NumberedShard, numbers: Numbers) -> Numbers:
        """Return which documents of ascending numbers lie in a shard, as rows of it."""
        begin, end = np.searchsorted(numbers, (shard.begin, shard.begin + shard.rows))
        return numbers[begin:end] - shard.begin

    def shard_of(self, number: int) -> NumberedShard:
        """Return where a document lies."""
        return self._shards[int(np.searchsorted(self._begins, number, side="right")) - 1]

    def shingles(self, numbers: Numbers) -> Iterator[tuple[Numbers, Sequence[Hashes32]]]:
        """Yield the shingles of documents of ascending numbers, a row group at a time."""
        for shard in self._shards:
            rows = self.within(shard, numbers)
            if not len(rows):
                continue
            begin = 0
            for group in read_shingles(shard.shingles.corpus.open(shard.shingles.file)):
                chosen = rows[(rows >= begin) & (rows < begin + len(group))] - begin
                yield (
                    chosen + begin + shard.begin,
                    [group.shingles[group.ends[row] : group.ends[row + 1]] for row in chosen],
                )
                begin += len(group)

    def documents(self, sketches: Mapping[str, Sketch], pairs: Numbers, *, longest_first: bool) -> Documents:
        """Return what is known about all of them; `pairs` of numbers are compared in any case."""
        found = [sketches[shard.shingles.name] for shard in self._shards]
        rows = np.concatenate([np.empty(0, ROW), *(sketch.rows for sketch in found)])
        sizes = np.ascontiguousarray(rows["size"])
        earlier = sum(shard.rows for shard in self._shards if shard.earlier is not None)
        return Documents(
            exact=rows["exact"],
            sizes=sizes,
            near=rows["near"],
            held_out=self._of_each([not shard.shingles.may_hold for shard in self], np.bool_),
            earlier=earlier,
            order=self._order(sizes, earlier, longest_first=longest_first),
            hits=self._hits(found),
            pairs=pairs,
            bucket=lambda index: np.concatenate([np.empty(0, np.uint64), *(each.bucket(index) for each in found)]),
            shingles=self.shingles,
        )

    def _order(self, sizes: Hashes32, earlier: int, *, longest_first: bool) -> Numbers:
        is_there = np.ones(self.size, np.bool_)
        for shard in self._shards:
            is_there[shard.begin + _dropped(shard)] = False
        order = np.flatnonzero(is_there)
        if longest_first:
            splits = self._of_each(
                [-1 if shard.earlier is not None else shard.precedence for shard in self], np.int64
            )
            own = order >= earlier
            order[own] = order[own][np.lexsort((-sizes[order[own]].astype(np.int64), splits[order[own]]))]
        return order

    def _of_each(self, values: Sequence[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
        """Return an array with the value of its shard for each document."""
        return np.repeat(np.array(values, kind), [shard.rows for shard in self])

    def _hits(self, sketches: Sequence[Sketch]) -> Numbers:
        held_out: list[npt.NDArray[Any]] = [np.arange(shard.rows) + shard.begin for shard in self.held_out]
        numbers = np.concatenate([np.empty(0, np.int64), *held_out])
        found = [np.empty((0, 3), np.int64)]
        for shard, sketch in zip(self._shards, sketches, strict=True):
            hits = sketch.hits
            found.append(np.stack((hits["row"] + shard.begin, numbers[hits["held_out"]], hits["common"]), axis=1))
        return np.concatenate(found)


def earlier_artifacts(store: Store, keys: Sequence[str]) -> list[Artifact]:
    """Return the artifacts of these keys and those that they in turn were compared with, the earliest first.

    Raises: InputError if one is not there.
    """
    found: dict[str, Artifact] = {}

    def add(key: str) -> None:
        if key in found:
            return
        artifact = store.find(STAGE, key)
        if artifact is None:
            raise InputError(
                f"dedup.against must name keys of finished dedup artifacts in {store.url}, found {key!r}; "
                f"`pile ls dedup` shows them"
            )
        for earlier in artifact.manifest.config.get("against", ()):
            add(earlier)
        found[key] = artifact

    for key in keys:
        add(key)
    return list(found.values())


def split_precedence(part: str) -> int:
    """Return the place of a part's split in PRECEDENCE. Raises: InputError for a part of no known split."""
    split = part.partition("-")[0]
    if split not in PRECEDENCE:
        raise InputError(f"document shards must be called train-, val- or test- and a number, found {part!r}")
    return PRECEDENCE.index(split)


def _dropped(shard: NumberedShard) -> Numbers:
    """Return which documents of a shard an earlier artifact left out."""
    if shard.earlier is None or shard.drops is None:
        return np.empty(0, np.int64)
    return read_dropped(shard.earlier.open(shard.drops))


def _in_order(corpus: Artifact) -> list[StoredFile]:
    return sorted(corpus.files(SHINGLES), key=lambda file: (split_precedence(file.part), file.part))


def _source(artifact: Artifact) -> Artifact:
    """Return the filter artifact that an earlier dedup artifact was made from."""
    made_from = artifact.manifest.inputs["corpus"]
    source = artifact.store.find(made_from.stage, made_from.key)
    if source is None or source.content_digest != made_from.content_digest or not source.files(SHINGLES):
        raise InputError(
            f"dedup.against needs the shingles that {artifact.ref} was made from, but {made_from.stage}/"
            f"{made_from.key} is no longer in {artifact.store.url}, or was made before there were any; run its "
            f"recipe again"
        )
    return source


def _rows(paths: Sequence[Any], found: Sequence[Any]) -> list[int]:
    layouts = [read_layout(path) for path in paths]
    for path, (layout, _), (_, _, earlier, _) in zip(paths, layouts, found, strict=True):
        if layout != layouts[-1][0] and earlier is not None:
            raise InputError(
                f"dedup.against must name artifacts whose shingles are made as those of this corpus, "
                f"{layouts[-1][0]!r}, but those of {earlier.ref} are {layout!r}; set filter.shingles to that"
            )
        if layout != layouts[-1][0]:
            raise CorruptFileError(
                f"all shingles must be made alike, but {paths[-1]} has {layouts[-1][0]!r} and {path} {layout!r}; "
                f"rebuild them with `pile run RECIPE --force filter`"
            )
    return [rows for _, rows in layouts]
