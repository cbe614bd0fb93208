"""The page about a run in the Prefect UI: its first line, its stages, and texts as they are."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.exceptions import TerminationSignal

from flows.run_report import Report, failure
from flows.runs.request import Request
from storage.errors import Fault, InputError
from tasks.core.markdown import rows_markdown
from tasks.core.prefect_task import describe_pace
from tasks.core.stopping import Terminated


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr("flows.run_report.make_plan", lambda *_: [])
    request = Request.checked("demo", {}, "filter", [], str(tmp_path / "store"))
    return Report(request, "run-1")


def stop(report: Report, error: BaseException) -> list[str]:
    artifact = SimpleNamespace(ref="download/k", counts={"documents": 3})
    report.begins("download")
    report.results["download"] = SimpleNamespace(artifact=artifact, cached=True, seconds=0.1)
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
    artifact = SimpleNamespace(ref="publish/k", counts={}, open_folder=lambda _: Path("folder"))
    report.results["publish"] = SimpleNamespace(artifact=artifact, cached=False, seconds=1.0)
    report.request = replace(report.request, steps=(SimpleNamespace(stage=publish),))  # type: ignore[arg-type]
    where = "" if is_default else f" --store {url}"
    assert f"Or: `pile generate publish/k --prompt 'Once upon a time'{where}`" in report.markdown()


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
