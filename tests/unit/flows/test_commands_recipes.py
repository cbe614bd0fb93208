"""The verbs that speak of recipes and stages: every field is explained, and what is not a stage is refused."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.command.main import main
from flows.command.parser import build_parser
from flows.command.verbs import VERBS
from flows.plugins import CONFIGS, registries
from flows.recipes.reading import find_recipe
from flows.recipes.registry import RECIPES
from flows.stages import STAGES
from storage.artifacts.records import Run
from storage.artifacts.store import Store


def pile(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code, and what was printed or said."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert isinstance(stopped.value.code, int)
    shown = capsys.readouterr()
    return stopped.value.code, shown.err if stopped.value.code else shown.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "all", "demo"),
        ("why", "nonesuch", "demo"),
        ("plan", "demo", "--force", "nonesuch"),
        ("plan", "demo", "--force", "pack", "--force", "nonesuch", "--target", "pack"),
        ("run", "demo", "--force", "all"),
    ],
    ids=" ".join,
)
def test_what_is_not_a_stage_is_refused_with_the_stages_there_are(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, said = pile(capsys, *arguments, "--store", f"{tmp_path}/store")
    found = "all" if "all" in arguments else "nonesuch"
    assert (code, said) == (2, f"pile: a stage must be one of {', '.join(STAGES.names())}, found '{found}'\n")


def test_forced_stage_that_the_target_does_not_need_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = pile(capsys, "plan", "demo", "--target", "dedup", "--force", "train")
    assert code == 2
    assert "must be one that dedup needs (download, filter, dedup), found train" in said


def test_fields_of_the_chosen_source_and_model_are_explained_one_by_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shown = pile(capsys, "recipes", "pile", "--full")
    assert code == 0
    joined = shown.replace("\n      # ", "    # ")
    lines = {line.split()[0].rstrip(":"): line.partition("    # ") for line in joined.splitlines() if line}
    for field, value in (
        ("download.source.url", '"pile"'),
        ("download.source.include", '["*"]'),
        ("download.source.text_field", '["text", "content", "body", "raw_content"]'),
        ("train.model.n_layers", "4"),
        ("filter.shingles.words", "5"),
    ):
        shown_value, _, meaning = lines[field]
        assert shown_value.strip() == f"{field} = {value}"
        assert meaning
    assert lines["download.source.kind"][0].strip() == 'download.source.kind = "mirror"'
    assert lines["download.source"][0].strip() == "download.source: A mirror in The Pile's layout."


@pytest.mark.parametrize(
    ("seam", "member", "field"),
    [
        ("source", "mirror", "url: must be given    # Folder or"),
        ("source", "files", "text_field = [\"text\", \"content\", \"body\", \"raw_content\"]    # Field"),
        ("rule", "length", "min_words = 1    # Documents"),
        ("filter rule", "length", "min_words = 1    # Documents"),
        ("family", "world", "top_k: must be given    # Experts"),
        ("engine", "deepspeed", "zero_stage = 1    # What"),
        ("stage", "pack", "sequence_length = 2048    # Tokens"),
    ],
)  # fmt: skip
def test_fields_of_a_member_are_shown(
    seam: str, member: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = pile(capsys, "plugins", seam, member)
    assert code == 0
    joined = shown.replace("\n      # ", "    # ")
    assert any(line.startswith(f"  {field}") for line in joined.splitlines())
    rows = {row["field"]: row for row in json.loads(pile(capsys, "plugins", seam, member, "--json")[1])}
    row = rows[field.split()[0].rstrip(":")]
    assert row["meaning"]
    assert ("default" in row) == (" = " in field)


@pytest.mark.parametrize(
    ("place", "member"), [(place, name) for place in CONFIGS for name in registries()[place].names()]
)
def test_every_member_that_a_recipe_chooses_shows_its_fields(
    place: str, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = pile(capsys, "plugins", registries()[place].kind, member)
    assert code == 0
    assert shown.splitlines()[0].startswith(f"{member}: ")


def test_members_of_one_seam_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(pile(capsys, "plugins", "rule", "--json")[1])
    assert {row["seam"] for row in rows} == {"filter rule"}
    assert "length" in {row["member"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("zzz",), "a seam must be one of stage, source, reader, rule, family, engine, backend, found 'zzz'"),
        (("source", "zzz"), "a source must be one of mirror, files, python-environment"),
        (("reader", "jsonl"), "found 'reader': its members have nothing to choose"),
    ],
    ids=["seam", "member", "fields"],
)
def test_unknown_seam_member_or_fields_are_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = pile(capsys, "plugins", *arguments)
    assert code == 2
    assert said in error


def values_shown(shown: str) -> dict[str, str]:
    lines = [line.strip().partition("    # ")[0] for line in shown.splitlines()]
    return dict(line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#"))


def test_recipe_shows_what_differs_from_the_defaults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "based_on: world-1m\ntrain: {max_steps: 41, seed: 0}\n"
        "filter: {subsets: {Github: null, Mine: web}, shingles: {words: 3}}\ndedup: off\n"
    )
    code, shown = pile(capsys, "recipes", str(file))
    found = values_shown(shown)
    assert code == 0
    assert found["train.max_steps"] == "41"
    assert "train.seed" not in found
    assert found["filter.subsets.Github"] == "null"
    assert found["filter.subsets.Mine"] == '"web"'
    assert {name for name in found if name.startswith("filter.")} == {
        "filter.subsets.Github", "filter.subsets.Mine", "filter.shingles.words",
    }  # fmt: skip
    assert found["download.source.kind"] == '"python-environment"'
    assert found["train.model.family"] == '"world"'
    assert "dedup: off" in shown
    all_fields = values_shown(pile(capsys, "recipes", str(file), "--full")[1])
    entries = ("filter.subsets.", "pack.field_map.")
    assert {name for name in found if not name.startswith(entries)} < all_fields.keys()


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("full", [(), ("--full",)], ids=["short", "full"])
def test_fields_fit_a_terminal_of_80_columns(
    name: str, full: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in pile(capsys, "recipes", name, *full)[1].splitlines():
        assert len(line) <= 80, line


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_that_is_printed_as_json_is_a_recipe_file(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    file.write_text(pile(capsys, "recipes", name, "--json")[1])
    assert find_recipe(str(file)) == find_recipe(name)


def test_command_alone_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--quiet",)):
        code, shown = pile(capsys, *arguments)
        assert code == 0
        # Each in one line with what it is for, in one column: no name is longer than that leaves room for.
        assert all(f"\n  {name:10}  {verb.about[:40]}" in shown for name, verb in VERBS.items())


@pytest.mark.parametrize(
    "arguments", [("plugins", "source"), ("plugins", "source", "python-environment"), ("recipes",)]
)
def test_lists_fit_80_columns(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, shown = pile(capsys, *arguments)
    assert code == 0
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = pile(capsys, "--version")
    assert (code, shown) == (0, f"pile-pipeline {importlib.metadata.version('pile-pipeline')}\n")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("rnu",), "run"),
        (("--quiet", "recipe"), "recipes"),
        (("plan", "dmo"), "demo"),
        (("plan", "demo", "--target", "trian"), "train"),
        (("plan", "demo", "--force", "tokenise"), "tokenize"),
        (("why", "train_tokenizer"), "train-tokenizer"),
        (("estimate", "world-1n"), "world-1m"),
        (("plan", "demo", "--set", "train.max_step=3"), "max_steps"),
        (("plugins", "source", "miror"), "mirror"),
        (("plugins", "sorce"), "source"),
    ],
    ids=" ".join,
)
def test_misspelt_name_asks_what_was_meant(
    arguments: tuple[str, ...],
    meant: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PILE_STORE", f"{tmp_path}/store")
    code, said = pile(capsys, *arguments)
    assert code == 2
    assert f"; did you mean {meant!r}?" in said


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_ends_with_an_example_that_can_be_parsed(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, shown = pile(capsys, verb, "--help")
    assert code == 0
    assert all(len(line) <= 80 for line in shown.splitlines())
    example = shlex.split(re.search("example: .*?pile ([^>)]*)", shown, re.DOTALL)[1])
    assert build_parser().parse_args(example).verb is VERBS[verb]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from flows.command.parser import build_parser as b; b().format_help(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pydantic", "prefect", "numpy", "yaml", "pyarrow", "datatrove", "asyncio"}.intersection(
        loaded
    )


def test_plan_of_a_recipe_that_never_ran_says_so_and_compares_with_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one two three")
    file = tmp_path / "mine.yaml"
    file.write_text(f"based_on: own-files\ndownload: {{source: {{patterns: {tmp_path}/a.txt}}}}\n")
    store = Store(f"{tmp_path}/store")
    for name in ("other", "mine"):
        write_run(store, name)
        code, shown = pile(capsys, "plan", str(file), "--store", store.url)
        assert code == 0
        assert ("was never run in" in " ".join(shown.split())) == (name == "other")


def write_run(store: Store, name: str) -> None:
    store.write_run(
        Run(
            run_id=name, recipe_name=name, recipe={}, target="all", state="failed", stages=(), host="h",
            started="2026-01-01T00:00:00.000+00:00",
        )
    )  # fmt: skip
