"""A source that takes the files of a zip archive."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from storage.errors import Fault, InputError
from storage.sources.base import OpenSource, RecordFields, Source, SplitFields
from storage.sources.checked_files import file_digest
from storage.sources.progress import DownloadProgress
from storage.sources.readers.registry import is_readable


class ZipConfig(SplitFields, RecordFields):
    """A zip archive."""

    version: ClassVar[int] = 1
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"archive"})

    kind: Literal["zip"] = "zip"
    archive: str
    """Path of the archive; those of its files that have a reader are the corpus."""


class ZipSource(Source[ZipConfig]):
    """The readable files of an archive, by their names in it."""

    config_type = ZipConfig

    def __init__(self, config: ZipConfig) -> None:
        super().__init__(config)
        self.path = Path(config.archive).expanduser().absolute()
        self.origin = str(self.path)
        self.columns = config.columns()

    @classmethod
    def example(cls, folder: Path) -> ZipConfig:
        """Write an archive of two files."""
        with zipfile.ZipFile(folder / "corpus.zip", "w") as archive:
            archive.writestr("a.jsonl", '{"text": "one"}\n')
            archive.writestr("more/b.txt", "two\n")
        return ZipConfig(archive=str(folder / "corpus.zip"))

    def digests(self) -> dict[str, str]:
        """Hash what the archive holds."""
        if not os.path.isfile(self.path) or not zipfile.is_zipfile(self.path):
            raise InputError(f"download.source.archive must be a zip archive, found none at {self.path}")
        with zipfile.ZipFile(self.path) as archive:
            names = sorted(name for name in archive.namelist() if is_readable(name))
            return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}

    def hold_out(self) -> dict[str, float]:
        """Divide by the hash of the text."""
        return self.config.hold_out()

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        """Unpack into the folder, file by file."""
        yield _OpenZip(self.path, folder)


class _OpenZip(OpenSource):
    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        target = self.folder / name
        if not target.is_file() or file_digest(target) != sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.partial")
            try:
                with zipfile.ZipFile(self.path) as archive:
                    partial.write_bytes(archive.read(name))
            except (FileNotFoundError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise Fault(f"{self.path} must hold {name}, but: {error}; put it back and run again") from error
            found = file_digest(partial)
            if found != sha256:
                raise Fault(f"{name} in {self.path} must have sha256 {sha256}, found {found}; run again")
            os.replace(partial, target)
        progress.update(name, target.stat().st_size, target.stat().st_size)
        return target
