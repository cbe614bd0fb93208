"""What people name as their files: what is taken of it, what is left out, and what they are told."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from storage.errors import Fault, InputError
from storage.sources.files import FilesConfig, FilesSource
from storage.sources.local_files import LocalFiles, find_files
from storage.sources.progress import DownloadProgress


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as people have it."""
    for name in (
        "data/a.jsonl",
        "data/README.md",
        "data/sub/b.jsonl.gz",
        "data/sub/deep/c.parquet",
        "data/sub/picture.png",
        "data/.DS_Store",
        "data/.cache/d.jsonl",
        "data/SHA256SUMS.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "data" / "empty.jsonl").touch()
    return tmp_path / "data"


TAKEN = ["a.jsonl", "sub/b.jsonl.gz", "sub/deep/c.parquet"]


def names(*patterns: object) -> list[str]:
    return list(find_files([str(pattern) for pattern in patterns]).files)


def left_out(found: LocalFiles) -> set[str]:
    return {os.path.relpath(path, found.root) for paths in found.left_out.values() for path in paths}


def test_folder_means_its_readable_files_in_all_its_folders(data: Path) -> None:
    found = find_files([str(data)])
    assert list(found.files) == TAKEN
    assert all(path == data / name for name, path in found.files.items())
    every = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    # Nothing is missing without a word: of a hidden folder the folder is named.
    assert left_out(found) == every - set(TAKEN) - {".cache/d.jsonl"} | {".cache"}
    told = found.describe_left_out()
    assert "2 of other kinds (README.md, sub/picture.png)" in told
    assert "1 empty (empty.jsonl)" in told
    assert "2 hidden (.DS_Store, .cache)" in told
    assert "kind mirror" in told


@pytest.mark.parametrize(
    "pattern", ["data", "data/", "./data", "data/**", "data/**/", "dat?", "./../here/data", "."]
)
def test_folder_may_be_written_in_many_ways(tmp_path: Path, data: Path, pattern: str) -> None:
    (tmp_path / "here").mkdir()
    data.rename(tmp_path / "here" / "data")
    with chdir(tmp_path / "here"):
        found = find_files([pattern])
    prefix = "data/" if pattern in (".", "dat?") else ""
    assert list(found.files) == [prefix + name for name in TAKEN]


def test_home_and_files_and_folders_together(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(data))
    assert names("~/sub") == ["b.jsonl.gz", "deep/c.parquet"]
    assert names("~/a.jsonl", "~/sub") == TAKEN
    assert names("~/empty.jsonl", "~/sub/*.gz") == ["empty.jsonl", "sub/b.jsonl.gz"]  # empty, but named itself
    assert "empty.jsonl" not in find_files([str(data), f"{data}/empty.jsonl"]).describe_left_out()


def test_many_files_of_other_kinds_are_counted_and_some_named(data: Path) -> None:
    for number in range(12):
        (data / f"{number:02d}.md").touch()
    told = find_files([str(data)]).describe_left_out()
    assert "14 of other kinds (00.md, 01.md, 02.md, 03.md, 04.md, ...)" in told


def test_names_do_not_depend_on_which_files_there_are(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jsonl").write_text("x")
    patterns = (str(tmp_path), f"{tmp_path}/**/*.jsonl")
    assert [names(pattern) for pattern in patterns] == [["sub/a.jsonl"]] * 2
    (tmp_path / "z.jsonl").write_text("x")
    assert [names(pattern) for pattern in patterns] == [["sub/a.jsonl", "z.jsonl"]] * 2


def test_moving_the_folder_changes_no_digest(tmp_path: Path) -> None:
    for place in ("here", "there"):
        for name in ("b/1.txt", "a/2.jsonl", "a/1.jsonl"):
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    found = [
        FilesSource(FilesConfig(patterns=(f"{tmp_path}/{pattern}",))).digests()
        for pattern in ("here/**/*.*", "there/**/*.*", "here", "there/")
    ]
    assert all(list(one.items()) == list(found[0].items()) for one in found)
    assert list(found[0]) == ["a/1.jsonl", "a/2.jsonl", "b/1.txt"]
    assert found[0]["a/1.jsonl"] == hashlib.sha256(b"a/1.jsonl").hexdigest()


# ---- brackets, links, twice ----------------------------------------------------------------------


def test_names_with_brackets_are_taken_literally(tmp_path: Path) -> None:
    for folder in ("data [v1]", "datav"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "part[0].jsonl").write_text("x")
    (tmp_path / "part0.jsonl").write_text("x")
    (tmp_path / "part[0].jsonl").write_text("x")
    assert names(tmp_path / "part[0].jsonl") == ["part[0].jsonl"]
    assert names(tmp_path / "data [v1]") == ["part[0].jsonl"]
    assert names(tmp_path / "data [v1]", tmp_path / "datav") == ["data [v1]/part[0].jsonl", "datav/part[0].jsonl"]
    with pytest.raises(
        InputError, match=r"brackets themselves are written '.*/data \[\[\]v1\]/\*\.jsonl'"
    ) as caught:
        find_files([f"{tmp_path}/data [v1]/*.jsonl"])
    assert names(str(caught.value).split("written '")[1].split("'")[0]) == ["data [v1]/part[0].jsonl"]
    assert names(f"{tmp_path}/part[0-9].jsonl") == ["part0.jsonl"]


def test_file_that_several_patterns_mean_is_taken_once(data: Path) -> None:
    assert names(data, f"{data}/*.jsonl", f"{data}/../data/sub/*.gz", data / "sub") == [
        "a.jsonl",
        "empty.jsonl",
        *TAKEN[1:],
    ]


def test_links_are_followed_and_loops_end(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.jsonl").write_text("e")
    (data / "away").symlink_to(tmp_path / "elsewhere")
    (data / "again.jsonl").symlink_to(data / "a.jsonl")
    (data / "sub" / "up").symlink_to(data)
    (data / "sub" / "here").symlink_to(".")
    found = find_files([str(data)])
    assert list(found.files) == sorted(["a.jsonl", "away/e.jsonl", *TAKEN[1:]])
    assert left_out(found) >= {"again.jsonl", "sub/up", "sub/here"}
    assert list(find_files([str(data), f"{data}/away"]).files) == list(found.files)
    assert len(find_files([str(tmp_path / "elsewhere"), str(data / "away")]).files) == 1


def test_folders_that_link_to_each_other_many_times_are_visited_once(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}").mkdir()
        for name in ("one", "two"):
            (tmp_path / f"{number:02d}" / name).symlink_to(tmp_path / f"{(number + 1) % 30:02d}")
    (tmp_path / "29" / "a.jsonl").write_text("x")
    assert len(names(tmp_path / "00")) == 1


# ---- mistakes ------------------------------------------------------------------------------------


def _dangling(folder: Path) -> None:
    (folder / "link.jsonl").symlink_to(folder / "nowhere")


def _loop(folder: Path) -> None:
    (folder / "link.jsonl").symlink_to("link.jsonl")


def _closed(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o000)


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may read everything."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    yield
    os.seteuid(me)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_dangling, "link.jsonl is a link to .*/nowhere, which does not"), (_loop, "is a link to link.jsonl")],
)
@pytest.mark.parametrize("pattern", ["", "/link.jsonl", "/*"])
def test_link_that_leads_nowhere_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, pattern: str
) -> None:
    (tmp_path / "a.jsonl").write_text("x")
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        find_files([f"{tmp_path}{pattern}"])


def test_closed_folder_and_closed_file_are_named(not_root: None) -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "a.jsonl").write_text("x")
    _closed(folder)
    with pytest.raises(InputError, match=r"closed is closed to this user; open it"):
        find_files([str(folder)])
    (folder / "closed").rmdir()
    (folder / "a.jsonl").chmod(0)
    with pytest.raises(InputError, match=r"a.jsonl is closed to this user"):
        FilesSource(FilesConfig(patterns=(str(folder),))).digests()
    (folder / "a.jsonl").unlink()
    folder.rmdir()


def test_file_that_vanishes_is_a_fault_that_names_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("x")
    source = FilesSource(FilesConfig(patterns=(str(tmp_path),)))
    digests = source.digests()
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(Fault, match=r"b.jsonl must stay until it is read"):
        source.digests()
    with source.open(tmp_path) as opened, pytest.raises(Fault, match=r"b.jsonl must stay until it is read"):
        opened.fetch("b.jsonl", digests["b.jsonl"], DownloadProgress(1))


PASSWORD = "p4ssw0rd"


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("s3://bucket/x/*.jsonl", "aws s3 sync"),
        (f"s3://me:{PASSWORD}@bucket/x", "aws s3 sync"),
        ("S3:/bucket/x", "begins with s3://"),
        (f"https://me:{PASSWORD}@example.org/pile/", "kind=mirror"),
        ("http://example.org/a.jsonl", "download.source.url"),
        ("gs://bucket/x", "gcloud storage"),
        ("hf://datasets/me/x", "hf download"),
        ("file:///data/x", "write the path alone"),
        ("ftp://example.org/x", "bring the files here"),
    ],
)
def test_address_is_told_from_a_path(address: str, advice: str) -> None:
    with pytest.raises(InputError, match="must be files and folders of this machine") as caught:
        find_files([address])
    assert advice in str(caught.value)
    assert "relative paths" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.jsonl", "matches none.*reaches into folders"),
        ("$DATA/x", r"variables are not replaced, write what \$DATA stands for"),
        ("~nobody-of-this-name/x", "there is no user 'nobody-of-this-name'"),
        ("data/no/such/x.jsonl", "data/no does not exist"),
        ("", "write . for here"),
        ("  ", "write . for here"),
        ("data/README.md", r"must end in .*README.md; rename it"),
        ("data/*", "must end in .*README.md; .*name its folder"),
        ("data/sub/picture.png", "must end in"),
    ],
)
def test_pattern_that_means_no_readable_file_is_refused(data: Path, pattern: str, message: str) -> None:
    with chdir(data.parent), pytest.raises(InputError, match=message):
        find_files([pattern])


def test_folder_without_readable_files_says_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    with pytest.raises(InputError, match=r"holds none: it is empty; .*\.jsonl"):
        find_files([str(folder)])
    for name in ("a.md", "b.md", "c.doc", "LICENSE", ".hidden.jsonl"):
        (folder / name).write_text("x")
    (folder / "empty.txt").touch()
    with pytest.raises(InputError) as caught:
        find_files([str(folder)])
    told = str(caught.value)
    for said in (
        "4 of other kinds (2 '.md', 1 'LICENSE', 1 '.doc')",
        "1 hidden",
        "1 empty (1 '.txt')",
        ".parquet",
    ):
        assert said in told


def test_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="a pipe, socket or device"):
        find_files([str(tmp_path / "pipe.jsonl")])
    (tmp_path / "a.jsonl").write_text("x")
    assert left_out(find_files([str(tmp_path)])) == {"pipe.jsonl"}


def test_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb.jsonl").write_text("x")
    with pytest.raises(InputError, match="must be printable"):
        find_files([str(tmp_path)])
