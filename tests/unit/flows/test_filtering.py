"""`pile filter --try`: what it prints, its exit codes, and what it refuses."""

import json
from pathlib import Path

import pytest

from flows.command.main import main
from tests.unit.flows.trials import HOSTILE, STORY, recipe_of, write_jsonl

RECIPE = "mine.json"
DOCUMENTS = [
    ("Prose", STORY),
    ("Code", "x = 1\n" * 20),
    ("Code", "x" * 2000),
    ("My own", "short"),
    ("My own", f"{STORY} And so on."),
]


def tried(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit code, what was printed and what was said."""
    with pytest.raises(SystemExit) as stopped:
        main(["filter", "--try", *arguments])
    assert isinstance(stopped.value.code, int)
    shown = capsys.readouterr()
    return stopped.value.code, shown.out, shown.err


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a recipe of our own where the verb looks."""
    monkeypatch.chdir(tmp_path)
    own = json.loads(recipe_of(dedup={}).model_dump_json())
    Path(RECIPE).write_text(json.dumps({**own, "name": "mine"}))


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "some.jsonl", DOCUMENTS))


def test_subsets_reasons_and_twins_are_printed_in_80_columns(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, printed, said = tried(capsys, RECIPE, file)
    lines = printed.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0] == "5 documents of 1 file, judged as mine would"
    assert "filter: code: long-line: 1 document" in lines
    assert "  some.jsonl:3  Code, source  2000, at most 1000" in lines
    assert "filter: length: too-few-words: 1 document" in lines
    assert "dedup: near: near-duplicate: 1 document" in lines
    place = lines.index("  some.jsonl:5  My own, few (default)  similarity 0.98")
    assert lines[place + 1] == "    like some.jsonl:1"
    assert lines[place + 2].strip().startswith("This is the story of one-one")
    assert "filter.subsets does not name My own" in said
    assert "--set 'filter.subsets.My own=POLICY'" in said


def test_json_has_everything_about_each_document(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = tried(capsys, RECIPE, file, "--json")
    found = json.loads(printed)
    assert code == 0
    assert [each["verdict"] for each in found["documents"]] == ["kept", "kept", "dropped", "dropped", "dropped"]
    assert found["documents"][2] == {
        "id": "some.jsonl:3", "split": "train", "subset": "Code", "policy": "source", "subset_is_named": True,
        "verdict": "dropped", "stage": "filter", "rule": "code", "reason": "long-line", "value": 2000,
        "bound": 1000, "twin": None, "similarity": None,
    }  # fmt: skip
    assert found["documents"][4] == {
        "id": "some.jsonl:5", "split": "train", "subset": "My own", "policy": "few", "subset_is_named": False,
        "verdict": "dropped", "stage": "dedup", "rule": "near", "reason": "near-duplicate", "value": 0.977273,
        "bound": 0.5, "twin": "some.jsonl:1", "similarity": 0.977273,
    }  # fmt: skip
    assert found["unnamed_subsets"] == {"My own": 2}


def test_options_change_the_verdicts(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    def kept(*options: str) -> list[str]:
        found = json.loads(tried(capsys, RECIPE, file, "--json", "--set", "dedup=null", *options)[1])
        return [each["id"] for each in found["documents"] if each["verdict"] == "kept"]

    assert kept() == ["some.jsonl:1", "some.jsonl:2", "some.jsonl:5"]
    assert kept("--subset", "Anything") == [f"some.jsonl:{number}" for number in range(1, 6)]
    assert kept("--set", "filter.default_policy=all") == [f"some.jsonl:{n}" for n in (1, 2, 4, 5)]
    assert kept("--limit", "1") == ["some.jsonl:1"]


def test_page_is_written(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.html"
    code, printed, _ = tried(capsys, RECIPE, file, "--html", str(out))
    assert code == 0
    assert str(out) in printed
    assert f"<mark>{'x' * 2000}</mark>" in out.read_text()


def test_what_documents_hold_is_no_command_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "bad.jsonl", [("Code", HOSTILE[:45]), (f"'; rm -rf\x1b[31m{HOSTILE}"[:190], "")])
    code, printed, said = tried(capsys, RECIPE, str(file), "--set", "dedup=null")
    assert code == 0
    assert not [one for one in printed + said if not one.isprintable() and one != "\n"]


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        (("pil", "{file}"), "a recipe must be one of"),
        ((RECIPE, "{folder}/nothing.jsonl"), "must match a file"),
        ((RECIPE, "{folder}/picture.png"), "source files must end in .jsonl"),
        ((RECIPE, "{folder}/empty.jsonl"), "must hold a document, found 1 file that holds none"),
        ((RECIPE, "{folder}/broken.jsonl"), "found none but 1 bad record, the first in line 1 of broken.jsonl"),
        ((RECIPE, "{file}", "--limit", "0"), "--limit must be a number of documents from 1 to 2,000, found 0"),
        ((RECIPE, "{file}", "--subset", " "), "--subset must be the name of a subset"),
        ((RECIPE, "{file}", "--html", "{file}"), "--html must name a file that ends in .html"),
        (
            (RECIPE, "{file}", "--html", "{folder}/no/out.html"),
            "--html must name a file in a folder that is there",
        ),
        ((RECIPE, "{file}", "--set", "filter=null"), "must have the section filter"),
        ((RECIPE, "{file}", "--set", "filter.default_policy=nonesuch"), "must name one of the policies"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...], must: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "picture.png").write_bytes(b"png")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text("{nothing\n")
    before = Path(file).read_bytes()
    code, printed, said = tried(capsys, *(each.format(file=file, folder=tmp_path) for each in arguments))
    assert (code, printed) == (2, "")
    assert must in said
    assert Path(file).read_bytes() == before


def test_what_was_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "one two three four five six"}\n{broken\n')
    (folder / "b.jsonl").write_text('{"text": "another"}\n')
    code, _, said = tried(capsys, RECIPE, str(folder), "--limit", "1", "--set", "dedup=null")
    assert code == 0
    assert "1 file not looked into" in said
    code, _, said = tried(capsys, RECIPE, f"{folder}/a.jsonl", "--set", "dedup=null")
    assert "1 record left out that cannot be read, the first in line 2 of a.jsonl: not JSON" in said


def test_earlier_artifacts_are_said_not_to_be_compared_with(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    override = 'dedup.against=["0123456789abcdef"]'

    code, _, said = tried(capsys, RECIPE, file, "--set", override)

    assert code == 0
    assert "not compared with what dedup.against names (0123456789abcdef)" in said
