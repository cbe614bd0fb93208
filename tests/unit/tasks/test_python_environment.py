import ast
import base64
import hashlib
import inspect
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

import storage.sources.python_environment.texts as environment
from storage.errors import InputError
from storage.formats.documents import read_zstd_lines
from storage.sources.layout import read_checksums
from storage.sources.python_environment.mirror import lay_out_mirror
from storage.sources.python_environment.texts import (
    collect_texts,
    docstring_page,
    environment_digest,
    installed_files,
)

REQUESTED = 3_000_000
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    lay_out_mirror(folder, REQUESTED, 0.02, 0.03)
    return folder


def records(folder: Path, pattern: str = "*.zst") -> list[dict]:
    return [json.loads(line) for path in sorted(folder.rglob(pattern)) for line in read_zstd_lines(path)]


def text_bytes(found: list[dict]) -> int:
    return sum(len(record["text"].encode()) for record in found)


def test_mirror_holds_the_requested_text_in_the_stated_shares(mirror: Path) -> None:
    found = records(mirror)
    assert REQUESTED <= text_bytes(found) < REQUESTED + 2_000_000
    shares = Counter()
    for record in found:
        shares[record["meta"]["pile_set_name"]] += len(record["text"].encode())
    for kind, share in environment.SHARES.items():
        # A share ends with the document that reaches it.
        assert share * REQUESTED <= shares[kind] <= share * REQUESTED + environment.MAX_FILE_BYTES
    assert shares[environment.LIBRARY_SOURCE] >= 0.35 * REQUESTED


def test_mirror_is_complete_and_its_splits_have_a_useful_size(mirror: Path) -> None:
    listed = read_checksums((mirror / "SHA256SUMS.txt").read_bytes(), "the list")
    assert sorted(listed) == ["test.jsonl.zst", "train/00.jsonl.zst", "train/01.jsonl.zst", "val.jsonl.zst"]
    for name, sha256 in listed.items():
        assert hashlib.sha256((mirror / name).read_bytes()).hexdigest() == sha256
    assert text_bytes(records(mirror, "val.*")) >= 0.02 * REQUESTED
    assert text_bytes(records(mirror, "test.*")) >= 0.03 * REQUESTED


def test_mirror_keeps_equal_texts_in_one_split(mirror: Path) -> None:
    splits = [
        {record["text"] for record in records(mirror, pattern)} for pattern in ("val.*", "test.*", "[0-9]*.zst")
    ]
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert not splits[1] & splits[2]


def test_texts_are_real_files_of_this_installation(mirror: Path) -> None:
    by_name = {(file.kind, file.name): Path(file.path) for file in installed_files()}
    checked = Counter()
    for record in records(mirror):
        kind, name = record["meta"]["pile_set_name"], record["meta"]["file"]
        if kind == environment.DOCSTRINGS:
            kinds = (environment.LIBRARY_SOURCE, environment.STDLIB_SOURCE)
            [source] = [by_name[key, name] for key in kinds if (key, name) in by_name]
            module = ast.parse(source.read_bytes())
            documented = [node for node in ast.walk(module) if isinstance(node, DOCUMENTED)]
            assert all(text in record["text"] for node in documented[:1] if (text := ast.get_docstring(node)))
        elif kind == environment.DESCRIPTIONS:
            assert record["text"] in by_name[kind, name].read_bytes().decode()
        else:
            assert record["text"] == by_name[kind, name].read_bytes().decode()
        checked[kind] += 1
    assert len(checked) == 5


def test_layout_is_deterministic_and_not_repeated(mirror: Path, tmp_path: Path) -> None:
    lay_out_mirror(tmp_path, REQUESTED, 0.02, 0.03)
    files = sorted(path.relative_to(mirror) for path in mirror.rglob("*") if path.is_file())
    assert [(tmp_path / name).read_bytes() for name in files] == [(mirror / name).read_bytes() for name in files]
    (tmp_path / "val.jsonl.zst").unlink()
    lay_out_mirror(tmp_path, REQUESTED, 0.02, 0.03)
    assert not (tmp_path / "val.jsonl.zst").exists()  # complete, as its list of checksums says


def test_interrupted_layout_is_done_again(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "00.jsonl.zst").write_bytes(b"half")
    lay_out_mirror(tmp_path, REQUESTED, 0.02, 0.03)
    assert (tmp_path / "train" / "00.jsonl.zst").read_bytes() == (mirror / "train" / "00.jsonl.zst").read_bytes()


def test_installation_has_enough_text_for_the_demo() -> None:
    available = sum(Path(file.path).stat().st_size for file in installed_files())
    assert available > 20_000_000


def test_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [file for file in installed_files() if file.kind == environment.STDLIB_SOURCE][:20]
    monkeypatch.setattr(environment, "installed_files", lambda: iter(few))
    with pytest.raises(InputError, match=r"must hold 10000000 bytes of text, found \d+; lower download"):
        collect_texts(10_000_000)


def test_own_code_and_tests_are_not_taken() -> None:
    for file in installed_files():
        assert not file.package.replace("-", "_").lower().startswith("pile_pipeline")
        if file.kind in (environment.LIBRARY_SOURCE, environment.STDLIB_SOURCE):
            assert not {"test", "tests"} & set(Path(file.name).parts[:-1])


def make_distribution(place: Path, module: bytes) -> None:
    (place / "demo-1.0.dist-info").mkdir(parents=True, exist_ok=True)
    files = {"demo/a.py": module, "demo-1.0.dist-info/METADATA": b"Name: demo\n\nText\n" + b"x" * 300}
    rows = []
    for name, data in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    rows += ["../../bin/demo,sha256=abc,500\n", "demo/__pycache__/a.pyc,,\n", "demo-1.0.dist-info/RECORD,,\n"]
    (place / "demo-1.0.dist-info" / "RECORD").write_text("".join(rows))


HASH = "sha256=abc"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(["a/b.py,{h},300", "a/c.pyi,{h},300", "a/d.so,{h},300"], {"a/b.py"}, id="source"),
        pytest.param(
            ["a/b.py,,", "a/c.py,md5=abc,300", "a/d.py,{h},", "a/e.py,{h},10"], set(), id="no hash or text"
        ),
        pytest.param(['"a/b,c.py",{h},300', "a/d.py,{h},300"], {"a/b,c.py", "a/d.py"}, id="comma"),
        pytest.param(['"a/b ""c"".py",{h},300'], {'a/b "c".py'}, id="quotes"),
        pytest.param(['"a/b', 'c.txt",{h},300', "a/d.py,{h},300"], {"a/d.py"}, id="quotes over lines"),
        pytest.param(["demo-1.0.dist-info/LICENSE,{h},300"], {"demo-1.0.dist-info/LICENSE"}, id="licence"),
        pytest.param(["a/LICENSE,{h},300", "a/NOTICE.txt,{h},300"], set(), id="licence of another"),
        pytest.param(
            ["a/x-1.dist-info/METADATA,{h},300", "a/x-1.dist-info/LICENSE,{h},300", "a/LICENSE,{h},300"],
            set(),
            id="vendored",
        ),
    ],
)
def test_files_are_those_that_the_record_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], expected: set[str]
) -> None:
    info = tmp_path / "demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").touch()
    lines = [*(row.format(h=HASH) for row in rows), f"demo-1.0.dist-info/METADATA,{HASH},300"]
    (info / "RECORD").write_text("".join(f"{line}\n" for line in lines))
    point_at(tmp_path, monkeypatch)
    found = {(file.package, file.name) for file in installed_files()}
    assert found == {("demo-1.0", name) for name in {*expected, "demo-1.0.dist-info/METADATA"}}


def point_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "stdlib").mkdir(exist_ok=True)
    monkeypatch.setattr(
        environment.sysconfig, "get_path", lambda name: str(place / "stdlib" if name == "stdlib" else place)
    )


def test_digest_follows_the_text_and_not_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {}
    for name, module in (("here", b"# one\n" * 50), ("there", b"# one\n" * 50), ("other", b"# two\n" * 50)):
        make_distribution(tmp_path / name, module)
        point_at(tmp_path / name, monkeypatch)
        digests[name] = environment_digest()
    assert digests["here"] == digests["there"] != digests["other"]
    (tmp_path / "other" / "stdlib" / "new.py").write_bytes(b"# new\n" * 50)
    assert environment_digest() != digests["other"]


def test_file_changed_after_installation_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    make_distribution(tmp_path, b"# one\n" * 50)
    point_at(tmp_path, monkeypatch)
    assert [text.name for text in collect_texts(500)] == ["demo-1.0.dist-info/METADATA", "demo/a.py"]
    (tmp_path / "demo" / "a.py").write_bytes(b"# six\n" * 50)
    assert [text.name for text in collect_texts(300)] == ["demo-1.0.dist-info/METADATA"]
    with pytest.raises(InputError, match="must hold 500 bytes of text, found 305"):
        collect_texts(500)
    assert "left out 1 files of the installation: changed since they were installed" in caplog.text


def test_docstring_page_has_what_inspect_finds() -> None:
    page = docstring_page(inspect.getsource(json), "json")
    for value, name in (
        (json, "json\n"),
        (json.dumps, "json.dumps(obj, skipkeys,"),
        (json.loads, "json.loads(s, cls,"),
    ):
        assert f"{inspect.getdoc(value)}\n" in page
        assert name in page


@pytest.mark.parametrize("source", ["print 'python 2'", '"\\ud800"', "x = 1", "", "\0"])
def test_docstring_page_of_unusable_source_is_empty(source: str) -> None:
    assert docstring_page(source, "a") == ""


def test_digest_covers_every_file_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = list(installed_files())
    assert len({(file.package, file.name) for file in files}) == len(files)
    assert any(file.name == "json/__init__.py" and sys.version.split()[0] in file.package for file in files)
    before = environment_digest()
    changed = [*files[:-1], files[-1]._replace(sha256="other")]
    monkeypatch.setattr(environment, "installed_files", lambda: iter(changed))
    environment._digest_of.cache_clear()
    assert environment_digest() != before
    environment._digest_of.cache_clear()


def test_digest_that_was_told_before_follows_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_places", lambda: (str(tmp_path),))
    told = [environment_digest()]
    info = tmp_path / "some-1.0.dist-info"
    info.mkdir()
    for checksum in ("abc", "abd"):
        (info / "RECORD").write_text(f"some/a.py,sha256={checksum},300\nsome-1.0.dist-info/METADATA,,\n")
        told.append(environment_digest())
        assert environment_digest() == told[-1]
    assert len(set(told)) == len(told)
