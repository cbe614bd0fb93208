"""Local files, found by patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from storage.errors import Fault, InputError
from storage.sources.base import OpenSource, RecordFields, Source, SplitFields
from storage.sources.checked_files import file_digest, file_status
from storage.sources.progress import DownloadProgress
from storage.sources.readers.registry import is_readable, known_suffixes

HASH_THREADS = 8


class FilesConfig(SplitFields, RecordFields):
    """Local files."""

    version: ClassVar[int] = 1
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"patterns", "max_window_mb"})

    kind: Literal["files"] = "files"
    patterns: tuple[str, ...] = Field(min_length=1)
    """Files or patterns such as `data/**/*.jsonl.zst`; also .ndjson, .json, .csv, .tsv, .parquet, .arrow,
    .feather, and .txt (see text_files; those that end in -sentences.txt, of Leipzig corpora, hold a document per
    line). All text may end in .zst, .gz, .bz2 or .xz, and any of these files may lie in a .zip or .tar."""


class FilesSource(Source[FilesConfig]):
    """The files that match any pattern. Their names are their paths below the folder that all of them share.

    On another machine they must lie under the same paths, as on a shared disk.
    """

    config_type = FilesConfig

    def __init__(self, config: FilesConfig) -> None:
        super().__init__(config)
        self.columns = config.columns()
        self.files = find_files(config.patterns)
        first = next(iter(self.files))
        self.origin = str(self.files[first]).removesuffix(f"/{first}")

    @classmethod
    def example(cls, folder: Path) -> FilesConfig:
        """Write files of two formats."""
        (folder / "more").mkdir()
        (folder / "one.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
        (folder / "more" / "three.txt").write_text("three\n", encoding="utf-8")
        return FilesConfig(patterns=(f"{folder}/**/*.*",))

    def digests(self) -> dict[str, str]:
        """Hash the files, each once in a process as long as it does not change."""
        with ThreadPoolExecutor(HASH_THREADS) as threads:
            return dict(zip(self.files, threads.map(file_digest, self.files.values()), strict=True))

    def hold_out(self) -> dict[str, float]:
        """Divide by the hash of the text."""
        return self.config.hold_out()

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        """Take the files where they lie."""
        yield _OpenFiles(self.files)


class _OpenFiles(OpenSource):
    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        path = self._files[name]
        try:
            found = file_digest(path)
        except FileNotFoundError:
            raise Fault(f"{path} must stay until it is read, but it is gone; put it back and run again") from None
        if found != sha256:
            raise Fault(
                f"{path} must not change while it is read: it had sha256 {sha256}, now {found}; run again once it "
                f"is complete"
            )
        size = file_status(path)[0]
        progress.update(name, size, size)
        return path


def find_files(patterns: Sequence[str]) -> dict[str, Path]:
    """Return the local files that match any pattern, by name, sorted.

    Raises: InputError for a pattern without files and for a file of an unknown format.
    """
    found: set[Path] = set()
    for pattern in patterns:
        absolute = os.path.abspath(os.path.expanduser(pattern))
        is_name = os.path.isfile(absolute)
        matches = [Path(path) for path in ([absolute] if is_name else glob.glob(absolute, recursive=True))]
        files = [path for path in matches if path.is_file()]
        if not files:
            raise _no_files(pattern, absolute, matches)
        found.update(files)
    for path in sorted(found):
        if not str(path).isprintable():
            raise InputError(f"names of source files must be printable text, found {str(path)!r}; rename it")
        if not is_readable(path.name):
            raise InputError(f"source files must end in {known_suffixes()}, found {path}; narrow the pattern")
    common = os.path.commonpath([path.parent for path in found])
    return dict(sorted((path.relative_to(common).as_posix(), path) for path in found))


def _no_files(pattern: str, absolute: str, matches: Sequence[Path]) -> InputError:
    must = f"every entry of `patterns` must match a file, {pattern!r} matches none"
    dangling = [path for path in {Path(absolute), *matches} if os.path.islink(path) and not os.path.exists(path)]
    if dangling:
        return InputError(
            f"{must}: {dangling[0]} is a link to {os.readlink(dangling[0])}, which does not exist; mend it"
        )
    if matches:
        return InputError(f"{must} but a folder; to read a folder write {pattern.rstrip('/')}/**/*.jsonl.zst")
    return InputError(f"{must}; correct it, relative paths begin in {os.getcwd()}, and ** reaches into folders")
