"""The page about a run in the Prefect UI: its first line, its stages, and texts as they are."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal

from flows.run_report import Report, failure
from flows.runs.request import Request
from storage.errors import Fault, InputError
from tasks.core import prefect_task
from tasks.core.markdown import rows_markdown
from tasks.core.prefect_task import describe_pace
from tasks.core.stopping import Terminated


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr("flows.run_report.make_plan", lambda *_: [])
    request = Request.checked("demo", {}, "filter", [], str(tmp_path / "store"))
    return Report(request, "run-1")


def made(stage: str, **fields: Any) -> SimpleNamespace:
    artifact = SimpleNamespace(ref=f"{stage}/k", manifest=SimpleNamespace(key="k"), counts={}, **fields)
    return SimpleNamespace(artifact=artifact, cached=False, seconds=1.0)


def stop(report: Report, error: BaseException) -> list[str]:
    report.begins("download")
    report.results["download"] = made("download")
    report.results["download"].cached = True
    assert report.begins("filter") == "stage 2 of 2"
    report.watch(lambda *_: None)(1200, 4000, "shards")
    report.ended = error
    return report.markdown().splitlines()


@pytest.mark.parametrize(
    ("error", "first", "state"),
    [
        (
            KeyboardInterrupt(),
            "**Interrupted** in **filter** at 1,200 of 4,000 shards; the",
            "interrupted",
        ),
        (TerminationSignal(15), "**Cancelled** in **filter** at 1,200 of 4,000 shards; the", "cancelled"),
        (Terminated(), "**Cancelled** in **filter**", "cancelled"),
        (
            Fault("the store is away"),
            "**Failed** in **filter** at 1,200 of 4,000 shards: the store is away",
            "failed",
        ),
        (KeyError("x"), "**Failed** in **filter** at 1,200 of 4,000 shards: KeyError: 'x'", "failed"),
        (SystemExit(1), "**Failed** in **filter** at 1,200 of 4,000 shards: SystemExit: 1", "failed"),
    ],
)
def test_page_of_a_stopped_run_says_first_why_and_at_which_step(
    report: Report, error: BaseException, first: str, state: str
) -> None:
    lines = stop(report, error)
    assert lines[0].startswith(first)
    assert any(line.startswith("| download | cached |") for line in lines)
    assert any(line.startswith(f"| filter | {state} |") for line in lines)


@pytest.mark.parametrize("is_default", [True, False])
def test_command_for_the_model_names_the_store_where_it_must(
    report: Report, monkeypatch: pytest.MonkeyPatch, is_default: bool
) -> None:
    url = report.request.store.url
    if is_default:
        monkeypatch.setenv("PILE_STORE", url)
    publish = SimpleNamespace(name="publish", result="model", highlight=False)
    report.results["publish"] = made("publish", open_folder=lambda _: Path("folder"))
    report.request = replace(report.request, steps=(SimpleNamespace(stage=publish),))  # type: ignore[arg-type]
    where = "" if is_default else f" --store {url}"
    assert f"Or: `pile generate publish/k --prompt 'Once upon a time'{where}`" in report.markdown()


def test_page_lists_why_stages_ran_below_the_table_whose_lines_are_not_broken(report: Report) -> None:
    report.reasons = {"download": "never asked for", "filter": "differs from filter/k; filter.subsets a -> b | c"}
    lines = stop(report, Fault("the store is away"))
    assert "| stage | state | time | key | holds |" in lines
    assert lines[-2:] == ["", "- **filter**: differs from filter/k; filter.subsets a -\\> b \\| c"]


def test_page_names_stages_together_that_ran_for_one_reason(report: Report) -> None:
    report.reasons = dict.fromkeys(("download", "filter"), "what it reads is new")
    report.results["download"] = made("download")
    report.begins("filter")
    assert report.markdown().splitlines()[-1] == "- **download, filter**: what it reads is new"


def test_page_of_a_refused_run_says_what_was_wrong_without_an_exceptions_name() -> None:
    assert failure(InputError("no such recipe")) == "**Failed**: no such recipe"


@pytest.mark.parametrize("text", ["def f():\n    return 1", "  indented", "two  blanks", "```\nfence\n```\\n*a*"])
def test_text_of_a_table_keeps_its_characters(text: str) -> None:
    assert f"\n{text}\n" in rows_markdown([{"prompt": "def", "text": text}])


def test_rows_of_numbers_and_words_stay_a_table() -> None:
    assert rows_markdown([{"subset": "all", "bytes": 3}]).startswith("| subset | bytes |")


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ((None, None, "steps"), ""),
        ((2.0, 200.0, "steps"), "2.0 steps a second, about 3.3 min left"),
        ((0.2, 20.0, "shards"), "5.0 s for each of the shards, about 20 s left"),
        ((10.0, 0.0, "shards"), "10.0 shards a second"),
    ],
)
def test_pace_is_a_rate_and_the_time_left(seen, said: str) -> None:
    assert describe_pace(*seen) == said


def test_progress_is_not_tried_again_soon_on_a_server_that_did_not_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries, seen = [], []

    def refuse(**shown: object) -> None:
        tries.append(shown)
        raise OSError("no server")

    monkeypatch.setattr(prefect_task, "create_progress_artifact", refuse)
    monkeypatch.setattr(prefect_task, "PROGRESS_SECONDS", 0.0)
    progress = prefect_task._ProgressArtifact(
        "train", "stage 7 of 9", SimpleNamespace(progress=lambda *of: seen.append(of))
    )
    for step in (1, 2, 3):
        progress(step, 3, "steps")
    assert (len(tries), len(seen)) == (1, 3)
