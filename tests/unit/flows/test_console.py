"""What a run looks like: on a terminal of 80 columns, in a file, as JSON."""

import io
import json

import pytest
from rich.console import Console

from flows.console import plain
from flows.console.json_lines import JsonLines
from flows.console.plain import PlainConsole
from flows.console.terminal import TerminalConsole
from flows.console.wording import finished_text, how_it_goes
from flows.runs.events import Event, RunStarted, StageFinished, StageProgress, StageStarted
from flows.tables import text_table

PLACE = {"run": "20261128T000000-abcdef", "number": 7, "of": 9}
STARTED = RunStarted(run=PLACE["run"], recipe="demo", target="all", store="/s", stages=("train",))  # type: ignore[arg-type]


def begins(stage: str = "train") -> StageStarted:
    return StageStarted(**PLACE, stage=stage)  # type: ignore[arg-type]


def progress(done: int, total: int = 400, unit: str = "steps", **fields: object) -> StageProgress:
    known: dict[str, object] = {"rate": 2.5, "eta_seconds": 96.0, "note": "loss 5.421", **fields}
    return StageProgress(**PLACE, stage="train", done=done, total=total, unit=unit, **known)  # type: ignore[arg-type]


def ends(state: str = "done", stage: str = "train") -> StageFinished:
    counts = {"documents": 1_234_567, "text_bytes": 20_300_000, "tokens": 5_000_000_000, "dropped": 12_345}
    end = {"state": state, "seconds": 185.4, "key": "k" * 16, "content_digest": "", "counts": counts}
    return StageFinished(**PLACE, stage=stage, **end)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (progress(120), "120 of 400 steps, 2.5/s, 96 s left, loss 5.421"),
        (progress(0, rate=None, eta_seconds=None, note=""), "0 of 400 steps"),
        (progress(2_500_000, 40_000_000, "bytes", rate=1.5e6, note=""), "2.5 MB of 40.0 MB, 1.5 MB/s, 96 s left"),
        (progress(5, 9, "bytes of the sample", rate=None, eta_seconds=None, note=""), "5 B of 9 B of the sample"),
        (progress(12_345, 99_999, "tokens", rate=1234.5, note=""), "12,345 of 99,999 tokens, 1,234/s, 96 s left"),
    ],
)
def test_progress_says_how_far_how_fast_and_how_long(event: StageProgress, text: str) -> None:
    assert how_it_goes(event) == text


# ---- a terminal -----------------------------------------------------------------------------------


def drawn(*events: Event, color: bool = False) -> str:
    file = io.StringIO()
    terminal = Console(
        file=file, width=80, height=24, force_terminal=True, no_color=not color, legacy_windows=False
    )
    with TerminalConsole(terminal) as console:
        for event in events:
            console.hear(event)
            console.live.refresh()
    return file.getvalue()


def test_a_terminal_has_a_line_that_grows_and_one_for_each_stage_that_ended() -> None:
    text = drawn(STARTED, begins(), progress(120), ends(), begins("evaluate"), ends("cached", "evaluate"))
    assert "120 of 400 steps, 2.5/s, 96 s left, loss" in text
    assert "✓ train" in text
    assert "· evaluate" in text


def test_nothing_on_a_terminal_is_wider_than_it() -> None:
    import re

    text = drawn(STARTED, begins("train-tokenizer"), progress(120, note="x" * 100), ends("interrupted"))
    for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines():
        assert len(line) <= 80, line


def test_where_not_all_of_a_stage_fits_what_it_made_is_kept_whole() -> None:
    shown = drawn(ends())
    assert "5,000,000,000 tokens" in shown
    assert "1,234,567 documents" not in shown
    assert "…" not in shown


def test_where_not_all_progress_fits_the_rate_gives_way() -> None:
    shown = drawn(progress(120_000, total=400_000))
    assert "120,000 of 400,000 steps, 96 s left, loss 5.421" in shown
    assert "120 of 400 steps, 2.5/s, 96 s left, loss 5.421" in drawn(progress(120))


def test_without_colour_nothing_is_coloured() -> None:
    assert "\x1b[32m" in drawn(ends(), color=True)
    assert "\x1b[32m" not in drawn(ends())


# ---- a file ---------------------------------------------------------------------------------------


def test_a_file_gets_a_line_per_beginning_and_end_and_fewer_and_fewer_between(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(plain.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(plain, "BEGIN_SECONDS", 0.0)
    console = PlainConsole()
    console.hear(begins())
    console.begins.join()
    for second in range(1, 451):
        clock[0] = float(second)
        console.hear(progress(second, total=900))
    console.hear(ends())
    lines = capsys.readouterr().err.splitlines()
    assert [line[8:].split()[1] for line in lines] == ["begins", "60", "180", "420", "done"]


def test_a_cached_stage_has_no_time() -> None:
    assert finished_text(ends("cached")).split()[:2] == ["cached", "1,234,567"]


def test_what_is_done_has_no_time_left() -> None:
    assert "left" not in how_it_goes(progress(400, eta_seconds=0.0))


def test_a_stage_that_was_there_already_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = PlainConsole()
    console.hear(begins())
    console.hear(ends("cached"))
    console.begins.join()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("7 of 9  train           cached")


# ---- JSON -----------------------------------------------------------------------------------------


def test_json_says_at_most_one_progress_a_second_and_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.console import json_lines

    clock = [100.0]
    monkeypatch.setattr(json_lines.time, "monotonic", lambda: clock[0])
    lines = JsonLines()
    for done in range(1, 401):
        clock[0] += 0.01
        lines.hear(progress(done))
    lines.hear(ends())
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in said] == ["stage-progress"] * 5 + ["stage-finished"]
    assert said[-2]["done"] == 400


# ---- tables ---------------------------------------------------------------------------------------

ROWS = [
    {"stage": "train-tokenizer", "key": "0123456789abcdef", "holds": "many words " * 12, "n": 5},
    {"stage": "x", "key": "", "holds": "", "n": 12_345},
]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_the_columns_there_are(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = text_table(ROWS).splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(text_table(ROWS).split()).count("many") == 12  # no word is lost


def test_a_date_is_not_broken_where_longer_cells_can_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    row = {"artifact": "train/0123456789abcdef", "finished": "2026-11-28 09:30", "holds": "many words " * 9}
    assert "2026-11-28 09:30" in text_table([row])


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    assert text_table([{"artifact": "a", "pin": ""}, {"artifact": "b", "pin": ""}]) == "artifact\na\nb"
    assert "pin" in text_table([{"artifact": "a", "pin": ""}, {"artifact": "b", "pin": "best"}])


def test_no_word_is_cut_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert "0123456789abcdef" in text_table(ROWS)
