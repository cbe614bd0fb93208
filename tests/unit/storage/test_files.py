"""Roots by URL, and the local disk under adverse conditions; what all backends promise: tests/conformance."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage.backends.local import LocalBackend
from storage.backends.registry import open_backend
from storage.backends.s3 import S3Backend
from storage.errors import Fault, InputError

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished file of this machine."""
    path = tmp_path / "finished"
    path.write_bytes(b"finished")
    return path


# ---- roots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "root"),
    [("file:///tmp/a%20b", "/tmp/a b"), ("file://localhost/tmp/a", "/tmp/a"), ("FILE:///tmp/a", "/tmp/a"),
     ("/tmp/a%20b", "/tmp/a%20b"), ("~/a", str(Path.home() / "a")), ("/tmp/s3:a", "/tmp/s3:a")],
)  # fmt: skip
def test_open_files_finds_a_local_folder(url: str, root: str) -> None:
    assert open_backend(url).url == root


def test_open_files_keeps_a_relative_folder_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = open_backend("store")
    files.write("a", b"x")
    monkeypatch.chdir("/")
    assert open_backend(files.url).read("a") == files.read("a") == b"x"


@pytest.mark.parametrize("url", ["s3://bucket/a/b", "S3://bucket/a/b", "s3://bucket/a/b/"])
def test_open_files_finds_a_bucket(url: str) -> None:
    files = open_backend(url)
    assert isinstance(files, S3Backend)
    assert (files.url, files.bucket, files.folder) == ("s3://bucket/a/b", "bucket", "a/b")


@pytest.mark.parametrize("url", ["", "http://h/a", "gs://b/a", "s3://", "s3:///a", "file://other-host/a", "://"])
def test_open_files_refuses_what_is_no_store(url: str) -> None:
    with pytest.raises(InputError, match="store must"):
        open_backend(url)


def test_open_files_names_the_schemes_that_there_are() -> None:
    with pytest.raises(InputError, match=r"begins with one of file://, s3://.*found 'gs://b/a'"):
        open_backend("gs://b/a")


def test_open_files_refuses_a_file_as_root(finished: Path) -> None:
    with pytest.raises(InputError, match="must be a folder"):
        open_backend(str(finished))


# ---- the local disk under adverse conditions -------------------------------------------------------------


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


FULL_DISK = """
import resource, sys
from pathlib import Path
from storage.backends.local import LocalBackend
files = LocalBackend(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (files.write, files.create):
    try:
        write("a/" + write.__name__, b"new" * 1000)
    except OSError as error:
        print(error.errno)
"""


def test_local_write_that_the_disk_cannot_take_leaves_the_old_content(tmp_path: Path) -> None:
    files = LocalBackend(tmp_path / "store")
    files.write("a/write", b"old")
    done = run_python(FULL_DISK, files.url)
    assert done.stdout.split() == [str(errno.EFBIG)] * 2, done.stderr
    assert files.read("a/write") == b"old"
    assert [path for path, *_ in files.list("")] == ["a/write"]


KILLED = """
import os, signal, sys
from pathlib import Path
from storage.backends.local import LocalBackend
files = LocalBackend(Path(sys.argv[1]))
setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
if sys.argv[3] == "put":
    Path(sys.argv[1], "new").write_bytes(b"new")
    files.put(Path(sys.argv[1], "new"), "a/file")
else:
    getattr(files, sys.argv[3])("a/file", b"new")
"""


@pytest.mark.parametrize(
    ("call", "moment"),
    [
        ("write", "fsync"),
        ("write", "replace"),
        ("create", "fsync"),
        ("create", "link"),
        ("put", "fsync"),
        ("put", "replace"),
    ],
)
def test_local_writer_that_is_killed_leaves_the_old_content(tmp_path: Path, moment: str, call: str) -> None:
    files = LocalBackend(tmp_path / "store")
    if call != "create":
        files.write("a/file", b"old")
    assert run_python(KILLED, files.url, moment, call).returncode == -signal.SIGKILL
    assert [path for path, *_ in files.list("a")] == ([] if call == "create" else ["a/file"])
    assert call == "create" or files.read("a/file") == b"old"
    assert len(list(files.unfinished())) == (0 if call == "put" else 1)
    for name, _, _ in files.unfinished():
        files.abandon(name)
    assert list(files.unfinished()) == []


def other_disk(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make a rename from one of the folders to elsewhere fail as it does between disks."""
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        for folder in folders:
            if Path(source).is_relative_to(folder) and not Path(target).is_relative_to(folder):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_local_put_from_another_disk_copies(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalBackend(tmp_path / "store")
    disk = tmp_path / "disk"
    disk.mkdir()
    other_disk(monkeypatch, disk)
    moved = shutil.move(finished, disk / "finished")
    files.put(moved, "a/data.bin")
    assert files.read("a/data.bin") == b"finished"
    assert not moved.exists()
    assert list(files.unfinished()) == []


def test_local_put_from_another_disk_that_is_full_keeps_the_local_file(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalBackend(tmp_path / "store")
    files.write("a/data.bin", b"old")

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"fini")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    other_disk(monkeypatch, finished)
    with pytest.raises(OSError, match="No space left"):
        files.put(finished, "a/data.bin")
    assert finished.read_bytes() == b"finished"
    assert files.read("a/data.bin") == b"old"
    assert list(files.unfinished()) == []


def test_local_store_that_spans_two_disks_is_a_fault(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LocalBackend(tmp_path / "store")
    other_disk(monkeypatch, finished, tmp_path / "store" / "scratch")
    with pytest.raises(Fault, match="must lie on one disk"):
        files.put(finished, "a/data.bin")
    assert finished.read_bytes() == b"finished"


def test_local_create_without_hard_links_still_refuses_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    files = LocalBackend(tmp_path)
    assert files.create("a", b"first")
    assert not files.create("a", b"second")
    assert files.read("a") == b"first"
    assert list(files.unfinished()) == []


def test_local_write_where_a_file_is_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    files = LocalBackend(tmp_path)
    files.write("a", b"x")
    for call in (files.write, files.create):
        for path in ("a/b", "a/b/c"):
            with pytest.raises(NotADirectoryError):
                call(path, b"y")


def test_local_list_of_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An unreadable `pins` that looked empty would let garbage collection delete what is pinned.
    files = LocalBackend(tmp_path)
    files.write("pins/keep.json", b"x")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("pins"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for folder in ("pins", ""):
        with pytest.raises(PermissionError):
            list(files.list(folder))


def test_local_list_leaves_out_what_lies_behind_links(tmp_path: Path) -> None:
    files = LocalBackend(tmp_path / "store")
    LocalBackend(tmp_path / "other").write("a", b"x")
    files.write("b/own", b"x")
    (tmp_path / "store" / "b" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "store" / "b" / "loop").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "b" / "broken").symlink_to(tmp_path / "nothing")
    assert [path for path, *_ in files.list("")] == ["b/own"]
    files.delete("b/own")
    assert (tmp_path / "other" / "a").exists()


def test_local_writes_and_deletes_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    # `delete` removes the folders that it empties, at any moment between two steps of a write.
    files = LocalBackend(tmp_path)
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for turn in range(100):
                data = f"{name} {turn}".encode()
                if turn % 2:
                    files.write(f"a/b/c/{name}", data)
                else:
                    assert files.create(f"a/b/c/{name}", data)
                assert files.read(f"a/b/c/{name}") == data
                files.delete(f"a/b/c/{name}")
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "pqrs"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(files.list("a")) == []
