"""What every store backend promises (storage/backends/base.py) to one user, one check per promise, on any member.

`backend_race_checks.py` has what it promises to many at once.

A check gets a `Place` with an empty root. It fails with an AssertionError, or with whatever the member raises.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.backends.base import OpenBackend, StoreBackend
from storage.errors import Fault, InputError

MANY_PIECES = 20 << 20
"""More bytes than any backend takes in one piece."""

NAMES = (
    "a b+c&d%20e.txt",
    "Татарча текст",
    "日本/🦙.json",
    "e\u0301",
    "\u00e9",
    "#1;=:@",
    "$('",
    "%",
    "+",
    "a?b",
    "A",
)

IMPOSSIBLE = ("", "/", "user:secret@host/folder", "[/folder", "host:port/folder", "\0", "%00", "%ff/a b?c#d")
"""What may stand behind the scheme of a URL by mistake; a root that a member can make of one is no error."""

OpenUnreachable = Callable[[], StoreBackend]


@dataclass(frozen=True)
class Place:
    """A member at work: an empty root for it."""

    open: OpenBackend
    url: str
    """An empty root; with any letters behind it, it is another one."""
    folder: Path
    """An empty folder of this machine."""
    open_unreachable: OpenUnreachable | None = None
    """Opens a root that cannot be reached; None where there is no way to make one."""
    disk: Path | None = None
    """The folder of this machine that a root is made in; None where it is elsewhere."""

    def backend(self) -> StoreBackend:
        """Open the root."""
        return self.open(self.url)

    def unreachable(self) -> StoreBackend:
        """Open a root that cannot be reached."""
        if self.open_unreachable is None:
            pytest.skip("no way is known to make a root of this backend unreachable")
        return self.open_unreachable()

    def file(self, content: bytes) -> Path:
        """Return a finished local file."""
        path = self.folder / f"finished-{len(list(self.folder.iterdir()))}"
        path.write_bytes(content)
        return path


def read_gives_what_was_written(place: Place) -> None:
    backend, other = place.backend(), place.backend()
    for data in (b"", b"x", b" \r\n", bytes(range(256)) * 300, b"shorter"):
        backend.write("a/b/c.json", data)
        assert backend.read("a/b/c.json") == other.read("a/b/c.json") == data


def any_name_is_kept(place: Place) -> None:
    backend = place.backend()
    for name in NAMES:
        backend.write(f"n/{name}", name.encode())
    assert [path for path, *_ in backend.list("n")] == sorted(f"n/{name}" for name in NAMES)
    for name in NAMES:
        assert backend.read(f"n/{name}") == name.encode()


def missing_file_is_not_found(place: Place) -> None:
    backend = place.backend()
    copy = place.folder / "copy"
    for paths in (("none", "none/none"), ("a/none",)):
        for path in paths:
            for call in (backend.read, backend.size, backend.digest, lambda path: backend.fetch(path, copy)):
                with contextlib.suppress(FileNotFoundError):
                    raise AssertionError(f"of a missing file was said {call(path)}")
        backend.write("a/b", b"x")


def list_is_sorted_recursive_complete_and_relative(place: Place) -> None:
    backend = place.backend()
    assert list(backend.list("")) == list(backend.list("a")) == []
    paths = ["a/k/2", "a/k/10", "a/k/1/x", "a/k-1/x", "a/k1/x", "a/k.json", "b", "z/1/2/3/4"]
    for path in paths:
        backend.write(path, path.encode())
    for folder, found in (("", paths), ("a", paths[:6]), ("a/k", paths[:3]), ("z/1", paths[7:])):
        listed = [(path, size) for path, size, _ in backend.list(folder)]
        assert listed == [(path, len(path)) for path in sorted(found)]
    assert all(abs(changed - time.time()) < 120 for *_, changed in backend.list(""))


def store_may_change_while_it_is_listed(place: Place) -> None:
    backend = place.backend()
    paths = [f"a/{index:02}/{name}" for index in range(8) for name in "xy"]
    left, found = set(paths), []
    for path in paths:
        backend.write(path, b"old")
    for path, *_ in backend.list("a"):
        found.append(path)
        for gone in {path, *paths[-6:]} & left:
            backend.delete(gone)
            left.remove(gone)
        if path in paths:
            backend.write(f"{path}-new", b"new")
    assert len(found) == len(set(found))
    old = set(found) & set(paths)
    assert set(paths[:-6]) <= old
    assert {path for path, *_ in backend.list("")} == {f"{path}-new" for path in old}


def size_and_digest_are_right(place: Place) -> None:
    backend = place.backend()
    big = os.urandom(1 << 20) * (MANY_PIECES >> 20) + b"end"
    for data in (b"", b"x", big):
        backend.put(place.file(data), "a/data.bin")
        assert backend.size("a/data.bin") == len(data)
        assert backend.digest("a/data.bin") == (len(data), hashlib.sha256(data).hexdigest())
    backend.fetch("a/data.bin", place.folder / "copy")
    assert (place.folder / "copy").read_bytes() == big


def put_takes_the_local_file_away(place: Place) -> None:
    backend = place.backend()
    finished, target = place.file(b"finished"), place.file(b"behind a link")
    backend.put(finished, "a/1")
    assert not finished.exists()
    link = place.folder / "link"
    link.symlink_to(target)
    backend.put(link, "a/2")
    assert not link.is_symlink()
    target.unlink()
    assert [backend.read("a/1"), backend.read("a/2")] == [b"finished", b"behind a link"]


def create_leaves_what_is_there(place: Place) -> None:
    backend = place.backend()
    assert backend.create("a/lease", b"first")
    assert not backend.create("a/lease", b"second")
    assert not place.backend().create("a/lease", b"third")
    assert backend.read("a/lease") == b"first"
    backend.delete("a/lease")
    assert backend.create("a/lease", b"fourth")
    assert backend.read("a/lease") == b"fourth"


def delete_is_no_error_twice(place: Place) -> None:
    backend = place.backend()
    backend.write("a/b/c", b"x")
    backend.write("a/d", b"y")
    for path in ("a/b/c", "a/b/c", "a/none", "none/none"):
        backend.delete(path)
    assert [path for path, *_ in backend.list("")] == ["a/d"]


def nothing_outside_the_root_is_touched(place: Place) -> None:
    neighbour = place.open(f"{place.url}-2")
    for path in ("a/b", "a/c", "lease"):
        neighbour.write(path, b"theirs")
    backend = place.backend()
    assert list(backend.list("")) == []
    backend.write("a/b", b"ours")
    backend.put(place.file(b"ours"), "a/c")
    assert backend.create("lease", b"ours")
    for path, *_ in backend.list(""):
        backend.delete(path)
    assert [neighbour.read(path) for path, *_ in neighbour.list("")] == [b"theirs"] * 3


def opening_touches_nothing(place: Place) -> None:
    before = _tree(place.disk)
    place.backend()
    place.open(place.backend().url)
    assert _tree(place.disk) == before


def impossible_url_is_an_input_error(place: Place) -> None:
    scheme = place.url.partition("://")[0]
    for rest in IMPOSSIBLE:
        with contextlib.suppress(InputError):
            place.open(f"{scheme}://{rest}")
            assert "secret" not in rest, "the URL is kept with the results, and this one has a password"


def url_opens_the_same_root_from_anywhere(place: Place) -> None:
    backend = place.backend()
    backend.write("a", b"x")
    before = Path.cwd()
    os.chdir(place.folder)
    try:
        assert place.open(backend.url).read("a") == b"x"
        assert place.open(backend.url).url == backend.url
    finally:
        os.chdir(before)


def local_path_leads_to_the_file(place: Place) -> None:
    backend = place.backend()
    backend.write("a/b/c", b"x")
    path, folder = backend.local("a/b/c"), backend.local("a/b")
    assert (path is None) == (folder is None)
    if path is not None:
        assert path.is_absolute()
        assert path.parent == folder
        assert path.read_bytes() == b"x"


def scratch_is_a_place_to_put_from(place: Place) -> None:
    backend = place.backend()
    scratch = backend.scratch()
    if scratch is not None:
        assert scratch.is_absolute()
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "new").write_bytes(b"new")
        assert list(backend.list("artifacts")) == []
        assert list(backend.unfinished()) == []
        backend.put(scratch / "new", "artifacts/new")
        assert backend.read("artifacts/new") == b"new"


def unreachable_root_never_looks_empty(place: Place) -> None:
    backend = place.unreachable()
    calls: list[Callable[[], object]] = [
        lambda: list(backend.list("a")),
        lambda: list(backend.list("")),
        lambda: backend.read("a/b"),
        lambda: backend.size("a/b"),
        lambda: backend.digest("a/b"),
        lambda: backend.fetch("a/b", place.folder / "copy"),
        lambda: backend.write("a/b", b"x"),
        lambda: backend.create("a/b", b"x"),
        lambda: backend.delete("a/b"),
    ]
    for call in calls:
        _assert_fault(call)


def failed_put_keeps_the_local_file(place: Place) -> None:
    backend, finished = place.unreachable(), place.file(b"finished")
    _assert_fault(lambda: backend.put(finished, "a/b"))
    assert finished.read_bytes() == b"finished"


CHECKS: dict[str, Callable[[Place], None]] = {
    check.__name__: check
    for check in (
        read_gives_what_was_written,
        any_name_is_kept,
        missing_file_is_not_found,
        list_is_sorted_recursive_complete_and_relative,
        store_may_change_while_it_is_listed,
        size_and_digest_are_right,
        put_takes_the_local_file_away,
        create_leaves_what_is_there,
        delete_is_no_error_twice,
        nothing_outside_the_root_is_touched,
        opening_touches_nothing,
        impossible_url_is_an_input_error,
        url_opens_the_same_root_from_anywhere,
        local_path_leads_to_the_file,
        scratch_is_a_place_to_put_from,
        unreachable_root_never_looks_empty,
        failed_put_keeps_the_local_file,
    )
}


def _assert_fault(call: Callable[[], object]) -> None:
    try:
        found = call()
    except FileNotFoundError as error:
        raise AssertionError("an unreachable root looks empty") from error
    except (Fault, OSError):
        return
    except InputError as error:
        raise AssertionError("what a retry may heal is a Fault") from error
    raise AssertionError(f"an unreachable root answered {found!r}")


def _tree(folder: Path | None) -> dict[Path, int]:
    """Return everything below the folder with its time of change."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} if folder else {}
