"""What a source of text promises: the files of a corpus, by name and checksum, from wherever they are.

A source is one file or folder beside this one, or in another package, and one line in `registry.py` (or an entry
point of the group `pile_pipeline.sources`). In `tests/conformance/`, `source_checks.py` and
`source_mistake_checks.py` check each promise on every one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from storage.config import Config
from storage.formats.documents import TEST, TRAIN, VAL
from storage.sources.progress import DownloadProgress
from storage.sources.readers.base import Columns, TextFiles
from storage.sources.readers.chunks import MAX_WINDOW_BYTES
from storage.sources.readers.registry import reader_for


class SourceConfig(Config):
    """What a user may choose about a source; a member of the union `download.source` of a recipe.

    A subclass has a field `kind: Literal["..."]` with the name in the registry as its default, and only fields
    that have an effect. Those in `excluded_from_key` say where the files are and how they are fetched; the others
    shape the result and are part of its key, together with `kind` and `version`.
    """

    # A refused address may hold a password, which the error must not repeat.
    model_config = ConfigDict(hide_input_in_errors=True)

    version: ClassVar[int]
    """Raised when the same files and fields give other documents."""

    kind: str

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the result, and the version, as plain JSON values."""
        return {**super().identity(), "version": self.version}


ConfigT = TypeVar("ConfigT", bound=SourceConfig)


class OpenSource(ABC):
    """A source while its files are brought to this machine. Serves many threads."""

    def list_files(self, digests: Mapping[str, str]) -> dict[str, str]:
        """Return name -> SHA-256 of the files to fetch, sorted by name, when the source's digests are these."""
        return dict(digests)

    @abstractmethod
    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        """Return where the file lies on this machine once its content has this checksum.

        Reports its bytes to `progress`, which may tell it to stop. Raises: InputError or Fault that names the
        file if it is missing or has another content, Fault if it cannot be reached, OSError from the disk.
        """


class Source(ABC, Generic[ConfigT]):
    """A place that a corpus comes from, made from its config alone.

    - `digests` writes nothing, opens no more than it needs, and gives the same for the same content every time,
      wherever that lies: moving the files changes neither digests nor `config.identity()`.
    - Names are relative paths with `/` below the source, printable, unique; document ids begin with them.
    - A file that `fetch` returns has the bytes of its checksum. It lies in the folder that was given to `open`,
      or where it always was; fetched files outlive the `with` block.
    - What an attempt that was killed has left in the folder is continued or replaced, and what it finished is
      not brought again.
    - It can be pickled, and does the same in another working directory and on any machine that reaches the place
      of the files: paths are made absolute when it is made, connections are opened in `open`.
    - What the user got wrong is an InputError, in the constructor at the latest in `digests`.
    """

    config_type: ClassVar[type[SourceConfig]]

    parallel_files: int = 4
    """Files that are fetched and measured at the same time."""
    origin: str = ""
    """Folder or URL that names are relative to, for messages; no password. '' if there is none to look into."""
    columns: Columns = Columns()
    """Where its records hold what."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @classmethod
    @abstractmethod
    def example(cls, folder: Path) -> ConfigT:
        """Put a few small files into an empty folder, the same ones each time; return a config that finds them."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """Return name -> SHA-256 of everything that the documents depend on, sorted by name; writes nothing.

        These are the files themselves, or what files will be made of. Raises: InputError, Fault.
        """

    @abstractmethod
    def open(self, folder: Path) -> AbstractContextManager[OpenSource]:
        """Begin to bring files to this machine, into `folder` if they are not on it."""

    def readers(self, names: Iterable[str]) -> set[str]:
        """Return the names of the readers of its files, given the names of its digests."""
        return {reader_for(name).name for name in names}

    def split_of(self, name: str) -> str:
        """Return the split of all documents of a file: train, val or test."""
        return TRAIN

    def hold_out(self) -> dict[str, float]:
        """Return the shares of documents that go to `val` and `test` by the hash of their text.

        Empty where files come with splits of their own; otherwise all files are `train`.
        """
        return {}


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)  # strict, as JSON has no tuples
    return (value,) if isinstance(value, str) else value


FieldNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple), Field(min_length=1)
]
"""Names of fields in the order in which they are tried; one alone needs no list."""


class RecordFields(SourceConfig):
    """What a config adds whose files hold records of others. In names of fields a dot leads into an object."""

    text_field: FieldNames = ("text", "content", "body", "raw_content")
    """Field or column that holds the text: the first of these that is there, for each record or table. The log
    says which one it was."""
    subset_field: FieldNames = ("meta.pile_set_name", "pile_set_name")
    """Field or column that names the subset, likewise."""
    subset: str = Field(default="unlabelled", min_length=1, max_length=200)
    """Subset of documents that name none."""
    id_field: str = Field(default="id", min_length=1)
    """Field or column whose value is kept as `id` of a document's metadata. (Its own id is file and line.)"""
    keep_fields: tuple[Annotated[str, Field(min_length=1)], ...] = ("url", "source")
    """Further fields or columns that are kept as metadata if they are there; all of `meta` is kept anyway."""
    text_files: TextFiles = "document"
    """What a .txt file holds: one document, a document per line, or a document per paragraph, which is a block
    between blank lines."""
    max_window_mb: int = Field(default=MAX_WINDOW_BYTES >> 20, ge=1, le=4096)
    """Mebibytes of memory that unpacking a file may take: files of `zstd --long=31` need 2048, usual ones 8 or
    less. Each file that is read at the same time takes what it needs."""

    def columns(self) -> Columns:
        """Return how the files are read."""
        return Columns(
            text=self.text_field,
            subset=self.subset,
            subset_fields=self.subset_field,
            id=self.id_field,
            keep=self.keep_fields,
            text_files=self.text_files,
            max_window=self.max_window_mb << 20,
        )


class SplitFields(SourceConfig):
    """What a config adds whose files do not come divided into splits."""

    val_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of validation documents, by hash of the text."""
    test_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of test documents, likewise."""

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction must leave something to train on")
        return self

    def hold_out(self) -> dict[str, float]:
        """Return the shares that are not 0, by split."""
        shares = {VAL: self.val_fraction, TEST: self.test_fraction}
        return {split: share for split, share in shares.items() if share > 0}
