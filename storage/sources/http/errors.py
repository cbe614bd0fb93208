"""What can go wrong with a mirror's answer. Importing this loads no httpx, so that sources stay light."""

from storage.errors import InputError


class MissingFile(InputError):
    """The mirror answered that it has no such file."""


class TryAgain(Exception):
    """The server asked for patience, or sent something that a repetition may heal."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
