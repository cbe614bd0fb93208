"""What every source promises (storage/sources/base.py) where something is wrong, or busy."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.errors import Fault, InputError
from storage.sources.progress import DownloadProgress
from tests.conformance.source_checks import Corpus

MISTAKES = ("", " ", "no such place", "no/such/*", "~nobody/x", "[", "http://[", "\0", "x" * 5000)
"""What a user may write into any field that takes text."""
PASSWORD = "p4ssw0rd"


def mistakes_are_input_errors(corpus: Corpus) -> None:
    config = corpus.config()
    for changed in _with_other_texts(json.loads(config.model_dump_json()), lambda text: MISTAKES):
        with suppress(InputError, ValidationError):
            corpus.member(type(config).model_validate_json(json.dumps(changed))).digests()


def place_without_files_is_an_input_error(corpus: Corpus) -> None:
    expected = corpus.source("there").digests()
    corpus.config()
    for remove in (_remove_files, shutil.rmtree):
        remove(corpus.folder / "here")
        with suppress(InputError):
            assert corpus.source().digests() == expected


def missing_file_is_named(corpus: Corpus) -> None:
    source, files = corpus.source(), corpus.files()
    _remove_files(corpus.folder / "here")
    for name, sha256 in files.items():
        message = _fetch(source, name, sha256, corpus.folder / "anew")
        assert message is None or Path(name).name in message


def unreachable_place_is_a_fault(corpus: Corpus) -> None:
    source, files = corpus.source(), corpus.files()
    corpus.cut_off(corpus.folder / "here")
    for name, sha256 in files.items():
        assert _fetch(source, name, sha256, corpus.folder / "anew") != ""


def opened_source_serves_many_threads(corpus: Corpus) -> None:
    files = corpus.files()
    expected = [path.read_bytes() for path in corpus.fetch().values()]
    together = threading.Barrier(len(files), timeout=60)
    with (
        corpus.source().open(corpus.folder / "anew") as opened,
        ThreadPoolExecutor(len(files)) as threads,
    ):

        def fetch(name: str) -> bytes:
            together.wait()
            return opened.fetch(name, files[name], DownloadProgress(len(files))).read_bytes()

        assert list(threads.map(fetch, files)) == expected


def passwords_are_not_shown(corpus: Corpus) -> None:
    config = corpus.config()
    for changed in _with_other_texts(json.loads(config.model_dump_json()), _with_password):
        assert PASSWORD not in _shown(corpus, changed)


def _shown(corpus: Corpus, fields: dict[str, Any]) -> str:
    """Return what messages would show of a source with these fields."""
    try:
        return corpus.member(type(corpus.config()).model_validate_json(json.dumps(fields))).origin
    except (ValidationError, InputError) as error:
        return str(error)


def _fetch(source: Any, name: str, sha256: str, folder: Path) -> str | None:
    """Fetch a file; return what the error says, None if the file came nevertheless."""
    try:
        with source.open(folder) as opened:
            path = opened.fetch(name, sha256, DownloadProgress(1))
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except (InputError, Fault) as error:
        return str(error)
    return None


def _remove_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def _with_password(text: str) -> tuple[str, ...]:
    scheme, separator, rest = text.partition("://")
    return (f"{scheme}://user:{PASSWORD}@{rest}",) if separator else ()


def _with_other_texts(value: Any, others: Callable[[str], tuple[str, ...]]) -> Iterator[Any]:
    """Yield plain JSON values with one text changed in each, but for the kind."""
    if isinstance(value, str):
        yield from others(value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in _with_other_texts(item, others))
    elif isinstance(value, dict):
        for name, item in value.items():
            if name != "kind":
                yield from ({**value, name: other} for other in _with_other_texts(item, others))


MISTAKE_CHECKS: dict[str, Callable[[Corpus], None]] = {
    check.__name__: check
    for check in (
        mistakes_are_input_errors,
        place_without_files_is_an_input_error,
        missing_file_is_named,
        unreachable_place_is_a_fault,
        opened_source_serves_many_threads,
        passwords_are_not_shown,
    )
}
