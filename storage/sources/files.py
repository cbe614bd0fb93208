"""Local files, named one by one, by folders or by patterns."""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from storage.errors import Fault
from storage.notice import NOTICE
from storage.sources.base import OpenSource, RecordFields, Source, SplitFields
from storage.sources.checked_files import file_digest, file_status
from storage.sources.local_files import LocalFiles, find_files
from storage.sources.local_mistakes import closed_file
from storage.sources.progress import DownloadProgress

log = logging.getLogger(__name__)

HASH_THREADS = 8


class FilesConfig(SplitFields, RecordFields):
    """Local files."""

    version: ClassVar[int] = 1
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"patterns", "max_window_mb"})

    kind: Literal["files"] = "files"
    patterns: tuple[str, ...] = Field(min_length=1)
    """Folders, files, or patterns such as `data/**/*.jsonl.zst`. A folder means the files in it and in its folders
    that can be read, but for hidden and empty ones; what is left out is named in the log. Read are .jsonl,
    .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather and .txt (see text_files; those that end in
    -sentences.txt, of Leipzig corpora, hold a document per line). All text may end in .zst, .gz, .bz2 or .xz, and
    any of these files may lie in a .zip or .tar."""


class FilesSource(Source[FilesConfig]):
    """The files that any pattern means. Their names are their paths below the folder that all patterns share.

    On another machine they must lie under the same paths, as on a shared disk.
    """

    config_type = FilesConfig

    def __init__(self, config: FilesConfig) -> None:
        super().__init__(config)
        self.columns = config.columns()
        self.found = find_files(config.patterns)
        self.origin = self.found.root

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
            return dict(zip(self.found.files, threads.map(_digest, self.found.files.values()), strict=True))

    def hold_out(self) -> dict[str, float]:
        """Divide by the hash of the text."""
        return self.config.hold_out()

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        """Take the files where they lie."""
        yield _OpenFiles(self.found)


class _OpenFiles(OpenSource):
    def __init__(self, found: LocalFiles) -> None:
        self._found = found

    def list_files(self, digests: Mapping[str, str]) -> dict[str, str]:
        if left_out := self._found.describe_left_out():
            log.log(NOTICE, "not taken of %s: %s", self._found.root, left_out)
        return dict(digests)

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        path = self._found.files[name]
        found = _digest(path)
        if found != sha256:
            raise Fault(
                f"{path} must not change while it is read: it had sha256 {sha256}, now {found}; run again once it "
                f"is complete"
            )
        size = file_status(path)[0]
        progress.update(name, size, size)
        return path


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except FileNotFoundError:
        raise Fault(f"{path} must stay until it is read, but it is gone; put it back and run again") from None
    except PermissionError:
        raise closed_file(str(path)) from None
