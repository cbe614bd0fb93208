"""Real text that every Python installation carries: a corpus without a network.

Library source, the standard library, docstrings, package descriptions and licences, labelled as what they
are. Natural duplicates (licences above all) stay, as in any crawl. Which files are taken follows from their
hashes, so the same installation gives the same bytes wherever it lies.
"""

import ast
import base64
import csv
import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from storage.errors import InputError

log = logging.getLogger(__name__)

LIBRARY_SOURCE = "Python Packages (source)"
STDLIB_SOURCE = "Python Standard Library (source)"
DOCSTRINGS = "Python Docstrings"
DESCRIPTIONS = "Package Descriptions"
LICENCES = "Licences"

SHARES = {DESCRIPTIONS: 0.10, LICENCES: 0.10, STDLIB_SOURCE: 0.15, DOCSTRINGS: 0.25}
"""Share of the text of each kind; library source takes the rest, and what the others are short of."""

OWN_DISTRIBUTION = "pile_pipeline"
MIN_FILE_BYTES = 200
MAX_FILE_BYTES = 200_000
"""Source files above this are mostly generated tables."""
MAX_MEAN_LINE = 200
"""Bytes per line; minified and generated code has longer lines."""
MIN_DOCSTRING_SHARE = 0.25
"""Files with less between triple quotes are not parsed: ast reads 4 MB/s, and one in six bytes is docstring."""
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
Described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
"""What has a docstring."""
METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
"""Of the distribution itself; packages that it has vendored have theirs in deeper folders."""
LICENCE_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")


class InstalledFile(NamedTuple):
    """A file of the installation whose checksum is on record."""

    kind: str
    """Subset of the text that it holds; library source also yields docstrings."""
    package: str
    name: str
    """Path as it is imported, without the place of the installation."""
    place: str
    """Folder of the installation."""
    sha256: str
    """As RECORD files write it: URL-safe base64 without padding."""

    @property
    def path(self) -> str:
        """Where it lies."""
        return os.path.join(self.place, self.name)


@dataclass(frozen=True)
class Text:
    """One document of the corpus."""

    kind: str
    package: str
    name: str
    text: str


def environment_digest() -> str:
    """Identify the installation's text: 0.2 s for 230 distributions, since their RECORD files hold checksums.

    To be told that nothing was installed since it was last asked takes a tenth of that.
    """
    return _digest_of(_places(), _stamps())


@functools.lru_cache(maxsize=1)
def _digest_of(_places: tuple[str, ...], _stamps: frozenset[tuple[str, int, int]]) -> str:
    files = sorted(f"{file.kind}\n{file.package}\n{file.name}\n{file.sha256}\n" for file in installed_files())
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _stamps() -> frozenset[tuple[str, int, int]]:
    """Return path, size and time of change of every file that the digest is computed from."""
    paths = list(_stdlib_paths())
    paths += [str(record) for place in _places() for record in Path(place).glob("*.dist-info/RECORD")]
    return frozenset((path, found.st_size, found.st_mtime_ns) for path in paths for found in [os.stat(path)])


def collect_texts(text_bytes: int) -> list[Text]:
    """Return at least `text_bytes` of text, divided over the kinds as `SHARES` says."""
    files = sorted(installed_files(), key=lambda file: (file.sha256, file.package, file.name))
    skipped: Counter[str] = Counter()
    code = [file for file in files if file.kind in (LIBRARY_SOURCE, STDLIB_SOURCE)]
    streams = {
        DESCRIPTIONS: _texts(_of_kind(files, DESCRIPTIONS), skipped),
        LICENCES: _texts(_of_kind(files, LICENCES), skipped),
        STDLIB_SOURCE: _texts(_of_kind(files, STDLIB_SOURCE), skipped),
        # From the other end than the source, so that few files appear as both.
        DOCSTRINGS: _docstring_pages(reversed(code), skipped),
        LIBRARY_SOURCE: _texts(_of_kind(files, LIBRARY_SOURCE), skipped),
    }
    taken: list[Text] = []
    for kind, share in SHARES.items():
        taken += take(streams[kind], share * text_bytes)
    for kind in (LIBRARY_SOURCE, STDLIB_SOURCE, DOCSTRINGS, DESCRIPTIONS, LICENCES):
        taken += take(streams[kind], text_bytes - _size(taken))
    for reason, count in sorted(skipped.items()):
        log.info("left out %d files of the installation: %s", count, reason)
    if _size(taken) < text_bytes:
        raise InputError(
            f"this Python installation must hold {text_bytes} bytes of text, found {_size(taken)}; "
            f"lower download.source.text_bytes"
        )
    return taken


def installed_files() -> Iterator[InstalledFile]:
    """Yield the files that may be taken, of the standard library and of every installed distribution."""
    yield from _stdlib_files()
    for distribution in importlib.metadata.distributions(path=list(_places())):
        yield from _distribution_files(distribution)


def _places() -> tuple[str, ...]:
    return tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def _stdlib_files() -> Iterator[InstalledFile]:
    folder, package = sysconfig.get_path("stdlib"), f"Python {platform.python_version()}"
    for path in map(Path, _stdlib_paths()):
        if MIN_FILE_BYTES <= path.stat().st_size <= MAX_FILE_BYTES:
            relative = path.relative_to(folder).as_posix()
            yield InstalledFile(STDLIB_SOURCE, package, relative, folder, _record_hash(path.read_bytes()))


def _stdlib_paths() -> Iterator[str]:
    for where, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in {*TEST_FOLDERS, "site-packages", "dist-packages"}]
        yield from (os.path.join(where, name) for name in names if name.endswith(".py"))


def _distribution_files(distribution: importlib.metadata.Distribution) -> Iterator[InstalledFile]:
    record = distribution.read_text("RECORD") or ""
    lines = record.splitlines()
    if '"' not in record:  # a name in quotes may go over several lines
        # Two lines of three cannot count: to parse them would take longer than all else.
        lines = [line for line in lines if ".dist-info/" in line or (".py" in line and "sha256=" in line)]
    rows = [row for row in csv.reader(lines) if len(row) == 3]
    info = next((row[0].partition("/")[0] for row in rows if METADATA.fullmatch(row[0])), "")
    package, place = info.removesuffix(".dist-info"), str(distribution.locate_file(""))
    if not package or package.startswith(f"{OWN_DISTRIBUTION}-"):
        return
    for name, recorded, size in rows:
        kind = _kind(name, info)
        if kind and recorded.startswith("sha256=") and MIN_FILE_BYTES <= int(size or 0) <= MAX_FILE_BYTES:
            yield InstalledFile(kind, package, name, place, recorded.removeprefix("sha256="))


def _kind(name: str, info: str) -> str:
    if name.startswith(f"{info}/"):
        if name == f"{info}/METADATA":
            return DESCRIPTIONS
        return LICENCES if PurePosixPath(name).name.upper().startswith(LICENCE_NAMES) else ""
    if not name.endswith(".py") or name.endswith("_pb2.py") or name.startswith(("..", "/")):
        return ""
    *folders, file = name.split("/")
    is_test = file.startswith("test_") or file.endswith("_test.py") or file == "conftest.py"
    return "" if is_test or not TEST_FOLDERS.isdisjoint(folders) else LIBRARY_SOURCE


def _of_kind(files: Iterable[InstalledFile], kind: str) -> list[InstalledFile]:
    return [file for file in files if file.kind == kind]


def _texts(files: Iterable[InstalledFile], skipped: Counter[str]) -> Iterator[Text]:
    for file in files:
        if content := _content(file, skipped):
            text = content.partition("\n\n")[2].strip() if file.kind == DESCRIPTIONS else content
            if len(text) >= MIN_FILE_BYTES:
                yield Text(file.kind, file.package, file.name, text)


def _content(file: InstalledFile, skipped: Counter[str]) -> str:
    """Return the text of a file, '' with a reason in `skipped` if it must not be taken."""
    try:
        data = Path(file.path).read_bytes()
        text = data.decode()
    except FileNotFoundError:
        skipped["not there"] += 1
        return ""
    except UnicodeDecodeError:
        skipped["not UTF-8"] += 1
        return ""
    if _record_hash(data) != file.sha256:  # the key of the artifact was made from the recorded checksum
        skipped["changed since they were installed"] += 1
        return ""
    if len(data) > MAX_MEAN_LINE * (data.count(b"\n") + 1) and file.kind in (LIBRARY_SOURCE, STDLIB_SOURCE):
        skipped["generated or minified"] += 1
        return ""
    return text


def _docstring_pages(files: Iterable[InstalledFile], skipped: Counter[str]) -> Iterator[Text]:
    """Yield one page per module: every documented name with its docstring."""
    for file in files:
        source = _content(file, skipped)
        quoted = sum(map(len, source.split('"""')[1::2]))
        if quoted < MIN_DOCSTRING_SHARE * len(source) or not source:
            continue
        page = docstring_page(source, file.name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if len(page) >= MIN_FILE_BYTES:
            yield Text(DOCSTRINGS, file.package, file.name, page)


def docstring_page(source: str, module: str) -> str:
    """Return the docstrings of a module as text, each below the name and parameters it describes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser about other people's code
            tree = ast.parse(source)
        page = "\n\n".join(_entries(tree, module))
        page.encode()  # "\ud800" in a docstring is no text
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return page + "\n" if page else ""


def _entries(node: Described, name: str) -> Iterator[str]:
    if docstring := ast.get_docstring(node):
        yield f"{name}{_parameters(node)}\n\n{docstring}"
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _entries(child, f"{name}.{child.name}")


def _parameters(node: ast.AST) -> str:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return f"({', '.join(names)})"


def take(texts: Iterator[Text], text_bytes: float) -> list[Text]:
    """Return the next texts with at least `text_bytes`, or all that are left."""
    taken: list[Text] = []
    size = 0
    while size < text_bytes and (text := next(texts, None)) is not None:
        taken.append(text)
        size += len(text.text.encode())
    return taken


def _size(texts: Iterable[Text]) -> int:
    return sum(len(text.text.encode()) for text in texts)


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
