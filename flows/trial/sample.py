"""Takes the first documents of files, as a run would read them: a few of each, so that it takes seconds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from flows.recipes.schema import Recipe
from storage.errors import InputError
from storage.formats.documents import TEST, TRAIN, VAL, Document
from storage.sources.base import RecordFields, SourceConfig, SplitFields
from storage.sources.layout import split_of
from storage.sources.local_files import find_files
from storage.sources.readers.base import BadLine, Columns
from storage.sources.readers.registry import reader_for
from storage.wording import counted
from tasks.download.config import DownloadConfig
from tasks.download.reshard import split_by_hash

MOST_BYTES = 8_000_000
"""Of the text of a sample. Filter and dedup take a second for some megabytes, and a page of more is heavy."""
MOST_BYTES_OF_ONE = 2_000_000
"""A larger document is left out and counted: cut short it would be judged as another one."""
MOST_BAD = 1000
"""Bad records of a file after which it is left: it holds something else."""


@dataclass
class Sample:
    """Documents as a run would read them, and what is not among them."""

    documents: list[Document] = field(default_factory=list)
    """In the order of the files."""
    files: int = 0
    """Files that were looked into."""
    other_files: int = 0
    """Files that were not, since there are more of them than documents wanted."""
    bad: list[BadLine] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    """Ids of the documents that were left out for their size."""
    held_out: dict[str, str] = field(default_factory=dict)
    """The split, val or test, of the documents that a run holds out, by id."""


def take_sample(recipe: Recipe, patterns: Sequence[str], limit: int, subset: str | None = None) -> Sample:
    """Return up to `limit` documents from the beginnings of files, evenly over them.

    They are read as the recipe's source says (`text_field`, `subset_field`, ...) where it reads records; all
    documents are of `subset` if one is given. Held out is what a run would hold out: a share by the hash of the
    text, or, where files come divided into splits, those that are named so.

    Raises: InputError for what is no file that can be read, or if there is no document in all of them.
    """
    found = list(find_files(patterns).files.items())
    number = min(limit, len(found))
    chosen = [found[place * len(found) // number] for place in range(number)]
    sample = Sample(files=number, other_files=len(found) - number)
    source = _source(recipe)
    columns = (source if isinstance(source, RecordFields) else RecordFields(kind="none")).columns()
    bytes_left = MOST_BYTES
    for place, (name, path) in enumerate(chosen):
        files_left = number - place
        wanted = -(-(limit - len(sample.documents)) // files_left)
        for document in islice(_first_documents(path, name, columns, sample, bytes_left // files_left), wanted):
            bytes_left -= len(document.text.encode())
            sample.documents.append(document if subset is None else replace(document, subset=subset))
            if (split := _split_of(document, name, source)) != TRAIN:
                sample.held_out[document.id] = split
    if not sample.documents:
        raise InputError(_nothing_found(sample))
    return sample


def _first_documents(path: Path, name: str, columns: Columns, sample: Sample, most: int) -> Iterator[Document]:
    """Yield the documents of a file until they have so many bytes; note the records that are none."""
    bad = 0
    for _, item in reader_for(name).read(path, name, columns, lambda _: True):
        if isinstance(item, BadLine):
            sample.bad.append(item)
            bad += 1
            if bad == MOST_BAD:
                return
        elif (size := len(item.text.encode())) > MOST_BYTES_OF_ONE:
            sample.too_large.append(item.id)
        else:
            yield item
            most -= size
            if most <= 0:
                return


def _source(recipe: Recipe) -> SourceConfig | None:
    return next((value.source for _, value in recipe if isinstance(value, DownloadConfig)), None)


def _split_of(document: Document, name: str, source: SourceConfig | None) -> str:
    if not isinstance(source, SplitFields):
        return split_of(name) or TRAIN
    shares = source.hold_out()
    return split_by_hash(document.text, shares.get(VAL, 0.0), shares.get(TEST, 0.0))


def _nothing_found(sample: Sample) -> str:
    must = "the files of a trial must hold a document"
    if sample.bad:
        first = sample.bad[0]
        return (
            f"{must}, found none but {counted(len(sample.bad), 'bad records')}, the first in line {first.line} of "
            f"{first.file}: {first.reason}; mend them, or say with --set download.source.text_field=NAME where "
            f"the text is"
        )
    if sample.too_large:
        return (
            f"{must} of at most {MOST_BYTES_OF_ONE:,} bytes, found only larger ones, the first is "
            f"{sample.too_large[0]}; if a .txt file holds many, --set download.source.text_files=line or paragraph"
        )
    found = "1 file that holds none" if sample.files == 1 else f"{sample.files} files that hold none"
    return f"{must}, found {found}; name others"
