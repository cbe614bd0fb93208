"""What every source promises (storage/sources/base.py), one check per promise, on any member.

A check gets a `Corpus` with two empty folders for the member's example. It fails with an AssertionError, or with
whatever the member raises.
"""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage.canonical import canonical_json
from storage.errors import Fault, InputError
from storage.formats.documents import SPLITS
from storage.sources.base import Source, SourceConfig
from storage.sources.checked_files import file_status
from storage.sources.layout import is_safe_name
from storage.sources.progress import DownloadProgress
from storage.sources.readers.registry import READERS, reader_for

ROOT = Path(__file__).parents[2]
FETCH = """
import pickle, sys
from pathlib import Path
from storage.sources.progress import DownloadProgress
source, files, folder = pickle.load(sys.stdin.buffer)
with source.open(Path(folder)) as opened:
    for name, sha256 in files.items():
        print(opened.fetch(name, sha256, DownloadProgress(1)).absolute())
"""


@dataclass
class Corpus:
    """The example of a member in one folder, again in a second one, and a third for what is fetched."""

    member: type[Source[Any]]
    folder: Path
    """An empty folder for all of this."""
    config_for: Callable[[Path], SourceConfig] | None = None
    """Makes the config instead of the member's own example."""
    cut_off: Callable[[Path], None] = shutil.rmtree
    """Makes the place of the files unreachable, given the folder of the example."""
    _configs: dict[str, SourceConfig] = field(default_factory=dict)
    _files: dict[str, str] | None = None

    def config(self, place: str = "here") -> SourceConfig:
        """Return the config of the example in a folder of that name."""
        if place not in self._configs:
            folder = self.folder / place
            folder.mkdir()
            self._configs[place] = (self.config_for or self.member.example)(folder)
        return self._configs[place]

    def source(self, place: str = "here") -> Source[Any]:
        """Return a new source of the example."""
        return self.member(self.config(place))

    def files(self) -> dict[str, str]:
        """Return the files of the example with their checksums."""
        if self._files is None:
            source = self.source()
            with source.open(self.folder / "fetched") as opened:
                self._files = opened.list_files(source.digests())
        return self._files

    def fetch(self, progress: DownloadProgress | None = None) -> dict[str, Path]:
        """Fetch all files with a new source, into the same folder each time."""
        files = self.files()
        progress = progress or DownloadProgress(len(files))
        with self.source().open(self.folder / "fetched") as opened:
            return {name: opened.fetch(name, sha256, progress) for name, sha256 in files.items()}


def config_names_its_kind_and_round_trips(corpus: Corpus) -> None:
    config = corpus.config()
    assert isinstance(config, corpus.member.config_type)
    assert type(config).model_fields["kind"].default == config.kind
    assert type(config).model_validate_json(config.model_dump_json()) == config


def identity_has_kind_and_version(corpus: Corpus) -> None:
    identity = corpus.config().identity()
    canonical_json(identity)
    assert (identity["kind"], identity["version"]) == (corpus.config().kind, corpus.config().version)
    assert isinstance(identity["version"], int)
    assert identity["version"] >= 1


def every_field_is_in_the_key_unless_excluded(corpus: Corpus) -> None:
    config = corpus.config()
    fields = set(type(config).model_fields)
    assert config.excluded_from_key <= fields - {"kind"}
    assert set(config.identity()) == fields - config.excluded_from_key | {"version"}
    assert config.identity() == SourceConfig.identity(config)


def moving_the_files_changes_no_identity(corpus: Corpus) -> None:
    assert corpus.config("here").identity() == corpus.config("there").identity()
    assert corpus.source("here").digests() == corpus.source("there").digests()
    assert str(corpus.folder) not in json.dumps(corpus.config().identity())


def digests_are_repeated_and_sorted(corpus: Corpus) -> None:
    digests = corpus.source().digests()
    assert list(digests) == sorted(digests)
    assert list(corpus.source().digests().items()) == list(digests.items())
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests.values())


def digests_write_nothing(corpus: Corpus) -> None:
    corpus.config()
    before = _tree(corpus.folder)
    corpus.source().digests()
    assert _tree(corpus.folder) == before


def digests_are_the_same_in_another_folder(corpus: Corpus) -> None:
    expected = corpus.source().digests()
    away = corpus.folder / "away"
    away.mkdir()
    for member in (_from(corpus.folder, corpus.config(), corpus.member), corpus.source()):
        source = pickle.loads(pickle.dumps(member))
        with contextlib.chdir(away):
            assert source.digests() == expected
            assert pickle.loads(pickle.dumps(source)).digests() == expected


def names_are_safe_and_readable(corpus: Corpus) -> None:
    files = corpus.files()
    assert list(files) == sorted(files)
    for name in files:
        assert is_safe_name(name), name
        assert not name.startswith("~")
        reader_for(name)


def readers_are_those_of_the_files(corpus: Corpus) -> None:
    source = corpus.source()
    found = source.readers(source.digests())
    assert found == {reader_for(name).name for name in corpus.files()}
    assert found <= set(READERS.names())


def splits_are_known_and_given_once(corpus: Corpus) -> None:
    source = corpus.source()
    splits = {source.split_of(name) for name in corpus.files()}
    assert splits <= set(SPLITS)
    shares = source.hold_out()
    assert set(shares) <= {"val", "test"}
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) < 1
    assert not shares or splits == {"train"}


def fetched_files_have_their_checksums(corpus: Corpus) -> None:
    files = corpus.files()
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in corpus.fetch().items()}
    assert found == files
    assert files


def fetched_files_outlive_the_with(corpus: Corpus) -> None:
    assert all(path.stat().st_size for path in corpus.fetch().values())


def fetched_files_lie_where_they_may(corpus: Corpus) -> None:
    for path in corpus.fetch().values():
        assert path.is_absolute()
        assert path.is_file()
        assert path.is_relative_to(corpus.folder)


def another_checksum_is_refused_with_the_name(corpus: Corpus) -> None:
    name = next(iter(corpus.files()))
    with (
        corpus.source().open(corpus.folder / "fetched") as opened,
        pytest.raises((InputError, Fault), match=os.path.basename(name)),
    ):
        opened.fetch(name, "0" * 64, DownloadProgress(1))


def changed_byte_is_noticed(corpus: Corpus) -> None:
    files = corpus.files()
    name, path = next(iter(corpus.fetch().items()))
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    os.utime(path, ns=(0, 0))
    with corpus.source().open(corpus.folder / "fetched") as opened:
        message = ""
        try:
            path = opened.fetch(name, files[name], DownloadProgress(1))
        except (InputError, Fault) as error:
            message = str(error)
    assert os.path.basename(name) in message or path.read_bytes() == good


def finished_files_are_not_brought_again(corpus: Corpus) -> None:
    before = {name: (path, file_status(path), path.stat().st_ino) for name, path in corpus.fetch().items()}
    after = {name: (path, file_status(path), path.stat().st_ino) for name, path in corpus.fetch().items()}
    assert after == before


def rests_of_a_killed_attempt_do_no_harm(corpus: Corpus) -> None:
    before = {name: path.read_bytes() for name, path in corpus.fetch().items()}
    for path in (corpus.folder / "fetched").rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
            break
    assert {name: path.read_bytes() for name, path in corpus.fetch().items()} == before


def progress_counts_all_bytes_and_stops(corpus: Corpus) -> None:
    progress = DownloadProgress(len(corpus.files()))
    size = sum(path.stat().st_size for path in corpus.fetch(progress).values())
    assert progress.totals() == (size, size)
    progress.stop.set()
    with pytest.raises(Fault, match="was stopped"):
        corpus.fetch(progress)


def pickled_source_works_in_another_folder(corpus: Corpus) -> None:
    files = corpus.files()
    away, fetched = corpus.folder / "away", corpus.folder / "fetched away"
    away.mkdir()
    relative = _from(corpus.folder, corpus.config(), corpus.member)
    done = subprocess.run(
        [sys.executable, "-c", FETCH],
        input=pickle.dumps((relative, files, str(fetched))),
        cwd=away,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    paths = [Path(line) for line in done.stdout.decode().splitlines()]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in corpus.fetch().values()]


def _from(folder: Path, config: SourceConfig, member: type[Source[Any]]) -> Source[Any]:
    """Return a source whose config was written with paths relative to the folder, made there."""
    fields = json.loads(config.model_dump_json().replace(f"{folder}/", ""))
    with contextlib.chdir(folder):
        with contextlib.suppress(ValueError):
            return member(type(config).model_validate_json(json.dumps(fields)))
        return member(config)


def _tree(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: file_status(path) for path in folder.rglob("*")}


CHECKS: dict[str, Callable[[Corpus], None]] = {
    check.__name__: check
    for check in (
        config_names_its_kind_and_round_trips,
        identity_has_kind_and_version,
        every_field_is_in_the_key_unless_excluded,
        moving_the_files_changes_no_identity,
        digests_are_repeated_and_sorted,
        digests_write_nothing,
        digests_are_the_same_in_another_folder,
        names_are_safe_and_readable,
        readers_are_those_of_the_files,
        splits_are_known_and_given_once,
        fetched_files_have_their_checksums,
        fetched_files_outlive_the_with,
        fetched_files_lie_where_they_may,
        another_checksum_is_refused_with_the_name,
        changed_byte_is_noticed,
        finished_files_are_not_brought_again,
        rests_of_a_killed_attempt_do_no_harm,
        progress_counts_all_bytes_and_stops,
        pickled_source_works_in_another_folder,
    )
}
