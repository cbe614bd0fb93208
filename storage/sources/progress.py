"""How far several downloads are, for whoever watches them."""

import threading

from storage.errors import Fault


class DownloadProgress:
    """Counts the bytes of several downloads, and tells all of them to stop. Threads share one."""

    def __init__(self, files: int) -> None:
        self.files = files
        self.stop = threading.Event()
        self._bytes: dict[str, tuple[int, int]] = {}

    def update(self, name: str, have: int, size: int) -> None:
        """Note that `have` of the `size` bytes of a file are there. Raises: Fault if all shall stop."""
        self._bytes[name] = (have, size)
        if self.stop.is_set():
            raise Fault(f"the download of {name} was stopped; run again to continue where it was")

    def totals(self) -> tuple[int, int]:
        """Return the bytes that are there and the expected total: files not begun count as average."""
        known = list(self._bytes.copy().values())
        total = sum(size for _, size in known)
        return sum(have for have, _ in known), total * self.files // max(1, len(known))
