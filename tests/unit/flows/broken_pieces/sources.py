"""Sources that are none."""

from storage.sources.base import Source
from storage.sources.files import FilesConfig, FilesSource

number = 5


class Plain:
    pass


class OtherKind(FilesSource):
    config_type = FilesConfig


class NoConfig(FilesSource):
    config_type = None  # type: ignore[assignment]


class Abstract(Source[FilesConfig]):
    config_type = FilesConfig
