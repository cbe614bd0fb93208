"""The text that the running Python installation carries, as a corpus that needs no network."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from storage.sources.base import OpenSource, Source, SplitFields
from storage.sources.http.server import serve_folder
from storage.sources.layout import CHECKSUMS, read_checksums, split_of
from storage.sources.progress import DownloadProgress
from storage.sources.python_environment.mirror import FILE_SUFFIX, lay_out_mirror
from storage.sources.python_environment.texts import environment_digest
from storage.sources.readers.registry import reader_for

if TYPE_CHECKING:
    from storage.sources.http.client import HttpMirror

log = logging.getLogger(__name__)

INSTALLATION = "installation"
"""Name of the only digest: the files that are read are made from it."""


class PythonEnvironmentConfig(SplitFields):
    """The running Python installation: source, docstrings, descriptions, licences."""

    version: ClassVar[int] = 1

    kind: Literal["python-environment"] = "python-environment"
    text_bytes: int = Field(ge=1)
    """Bytes of text to take."""


class PythonEnvironmentSource(Source[PythonEnvironmentConfig]):
    """A small mirror that is laid out on this machine, and fetched over loopback like any other.

    On another machine the same packages must be installed.
    """

    config_type = PythonEnvironmentConfig

    @classmethod
    def example(cls, folder: Path) -> PythonEnvironmentConfig:
        """Take some text of this installation; nothing needs to be written."""
        return PythonEnvironmentConfig(text_bytes=20_000)

    def digests(self) -> dict[str, str]:
        """Hash what the packages' records say about their files."""
        return {INSTALLATION: environment_digest()}

    def readers(self, names: Iterable[str]) -> set[str]:
        """Return the reader of the files that are laid out."""
        return {reader_for(FILE_SUFFIX).name}

    def split_of(self, name: str) -> str:
        """Return the split that the name begins with: the layout has divided the documents."""
        return split_of(name)

    @contextmanager
    def open(self, folder: Path) -> Iterator[OpenSource]:
        """Lay out the mirror in the folder unless it is there, and serve it."""
        from storage.sources.http.client import HttpMirror  # noqa: PLC0415 - httpx: 0.14 s that `pile plan` spares

        laid_out = folder / "mirror"
        log.info("laying out %d bytes of text of this Python installation", self.config.text_bytes)
        laid_out.mkdir(parents=True, exist_ok=True)
        config = self.config
        lay_out_mirror(laid_out, config.text_bytes, config.val_fraction, config.test_fraction)
        with serve_folder(laid_out) as url, closing(HttpMirror(url)) as mirror:
            yield _OpenMirror(mirror, laid_out, folder / "files")


class _OpenMirror(OpenSource):
    def __init__(self, mirror: "HttpMirror", laid_out: Path, folder: Path) -> None:
        self._mirror = mirror
        self._laid_out = laid_out
        self._folder = folder

    def list_files(self, digests: Mapping[str, str]) -> dict[str, str]:
        path = self._laid_out / CHECKSUMS
        return dict(sorted(read_checksums(path.read_bytes(), str(path)).items()))

    def fetch(self, name: str, sha256: str, progress: DownloadProgress) -> Path:
        self._mirror.fetch(name, sha256, self._folder / name, progress)
        return self._folder / name
