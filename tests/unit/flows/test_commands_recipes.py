"""The verbs that speak of recipes and stages: every field is explained, and what is not a stage is refused."""

import json
from pathlib import Path

import pytest

from flows.command.main import main
from flows.plugins import CONFIGS, registries
from flows.stages import STAGES


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
    code, shown = pile(capsys, "recipes", "pile")
    assert code == 0
    lines = {line.split()[0].rstrip(":"): line.partition("    # ") for line in shown.splitlines() if line}
    for field, value in (
        ("download.source.url", '"pile"'),
        ("download.source.include", '["*"]'),
        ("download.source.text_field", '["text", "content", "body", "raw_content"]'),
        ("train.model.n_layers", "4"),
        ("filter.minhash.n_grams", "5"),
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
    assert any(line.startswith(f"  {field}") for line in shown.splitlines())
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
