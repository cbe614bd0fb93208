"""What is told and written of a run: events, record, log, the word for each way to stop."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from flows.runs import record as record_module
from flows.runs.events import EVENTS, Event, RunFinished, StageFinished, listening
from flows.runs.log_lines import early_lines, kept_until_the_run_begins
from flows.runs.record import new_record, recorded, state_of
from flows.runs.request import Request, new_run_id
from flows.runs.run_stages import run_stages
from storage.artifacts.records import Run, _told_apart, now
from storage.artifacts.run_log import PIECE_BYTES, RunLog, read_log
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import Fault, InputError
from tasks.core.context import Progress
from tasks.core.pace import Pace
from tasks.core.stage import StageResult
from tasks.core.stopping import Terminated, raise_when_told, state_after

NOTHING = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}


@pytest.fixture
def request_of_two(tmp_path: Path) -> Request:
    """The first two stages of the demo, in an empty store."""
    asked = Request.checked("demo", {}, "filter", [], str(tmp_path / "store"))
    assert [step.stage.name for step in asked.steps] == ["download", "filter"]
    return asked


def build(store: Store, stage: str) -> Artifact:
    writer = ArtifactWriter(store, stage, stage[0] * 16)
    local = writer.scratch() / "documents"
    local.write_text(stage)
    part = writer.commit("train-00000", {"documents": local}, counts={"documents": 1})
    return writer.publish([part], version=1, run_id="r", code_commit="", started="", seconds=0.0, **NOTHING)


def run(asked: Request, stop: BaseException | None = None) -> tuple[list[Event], Run]:
    """Run both stages; the second one reports progress, and may be stopped."""

    def execute(step: object, inputs: Mapping[str, Artifact], force: bool, progress: Progress) -> StageResult:
        stage = step.stage.name  # type: ignore[attr-defined]
        if stage == "filter":
            progress(3, 10, "shards", "loss 1.5")
            if stop is not None:
                raise stop
        return StageResult(build(asked.store, stage), cached=False, seconds=1.5)

    heard: list[Event] = []
    run_id = new_run_id()
    with listening(heard.append):
        if stop is None:
            run_stages(asked, run_id, execute)
        else:
            with pytest.raises(type(stop)):
                run_stages(asked, run_id, execute)
    found = asked.store.run(run_id)
    assert found is not None
    return heard, found


def test_a_run_is_told_and_recorded_stage_by_stage(request_of_two: Request) -> None:
    heard, found = run(request_of_two)
    names = [event.to_json()["event"] for event in heard]
    assert names == [
        "run-started", "stage-started", "stage-finished", "stage-started", "stage-progress", "stage-finished",
        "run-finished",
    ]  # fmt: skip
    assert (found.state, found.of, found.command) == ("done", 2, request_of_two.command)
    assert [(stage.stage, stage.state, stage.key) for stage in found.stages] == [
        ("download", "done", "d" * 16),
        ("filter", "done", "f" * 16),
    ]


@pytest.mark.parametrize(
    ("stop", "state", "said"),
    [
        (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
        (Terminated(), "cancelled", "it was told to stop"),
        (Fault("the disk is gone"), "failed", "the disk is gone"),
        (InputError("no such thing"), "failed", "no such thing"),
        (ZeroDivisionError("by 0"), "failed", "ZeroDivisionError: by 0"),
    ],
)
def test_each_way_to_stop_has_one_word_and_keeps_how_far_it_was(
    request_of_two: Request, stop: BaseException, state: str, said: str
) -> None:
    heard, found = run(request_of_two, stop)
    [stage_end] = [event for event in heard if isinstance(event, StageFinished) and event.stage == "filter"]
    [run_end] = [event for event in heard if isinstance(event, RunFinished)]
    assert (stage_end.state, run_end.state, found.state, state_of(found)) == (state,) * 4
    assert (run_end.error, found.error) == (said, said)
    assert run_end.next == found.command
    last = found.stages[-1]
    assert (last.state, last.done, last.total, last.unit, last.note) == (state, 3, 10, "shards", "loss 1.5")


def test_prefects_sigterm_is_a_cancel_too() -> None:
    from prefect.exceptions import TerminationSignal

    assert state_after(TerminationSignal(signal.SIGTERM)) == "cancelled"


def test_a_record_that_cannot_be_written_does_not_hide_what_stopped_the_run(
    request_of_two: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(step: object, inputs: object, force: bool, progress: Progress) -> StageResult:
        def refuse(self: Store, run: Run) -> None:
            raise OSError("the disk is gone")

        monkeypatch.setattr(Store, "write_run", refuse)
        raise Fault("what stopped it")

    with pytest.raises(Fault, match="what stopped it"):
        run_stages(request_of_two, new_run_id(), execute)


def test_the_command_of_a_run_asks_for_the_same_again(tmp_path: Path) -> None:
    import shlex

    from flows.command.parser import build_parser
    from flows.recipes.reading import parse_override

    overrides: dict[str, object] = {"train.max_steps": 77, "evaluate.prompts": ["a b's"]}
    overrides |= {"publish.name": "plain", "publish.description": "7"}
    asked = Request.checked("demo", overrides, "train", ["pack"], str(tmp_path / "store"))
    options = build_parser().parse_args(shlex.split(asked.command)[1:])
    again = dict(parse_override(text) for text in options.overrides)
    assert (options.recipe, again, options.target, options.force) == ("demo", overrides, "train", ["pack"])
    assert options.store == asked.store.url


def test_a_run_id_from_the_environment_is_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILE_RUN_ID", "given")
    assert new_run_id() == "given"
    assert new_run_id() != "given"


# ---- the record while the run goes on -------------------------------------------------------------


def wait_for(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_record_and_the_log_show_a_run_while_it_goes_on(
    request_of_two: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "BEAT_SECONDS", 0.02)
    store, run_id = request_of_two.store, new_run_id()

    def execute(step: object, inputs: object, force: bool, progress: Progress) -> StageResult:
        progress(1, 2, "shards")
        logging.getLogger("tasks.toy").info("said by a stage")
        wait_for(lambda: any(stage.done == 1 for stage in store.run(run_id).stages))  # type: ignore[union-attr]
        wait_for(lambda: b"said by a stage" in b"".join(read_log(store, run_id)))
        assert state_of(store.run(run_id)) == "running"  # type: ignore[arg-type]
        return StageResult(build(store, step.stage.name), cached=False, seconds=0.0)  # type: ignore[attr-defined]

    run_stages(request_of_two, run_id, execute)
    text = b"".join(read_log(store, run_id)).decode()
    assert text.count("said by a stage") == 2
    assert f"run {run_id}: done" in text.splitlines()[-1]


def test_a_run_that_is_asked_to_stop_from_elsewhere_stops_as_by_sigterm(
    request_of_two: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "BEAT_SECONDS", 0.02)
    store, run_id = request_of_two.store, new_run_id()

    def terminate(*_: object) -> None:
        raise Terminated

    def execute(step: object, inputs: object, force: bool, progress: Progress) -> StageResult:
        store.ask_to_stop(run_id)
        time.sleep(30)
        raise AssertionError("nobody stopped this")

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            run_stages(request_of_two, run_id, execute)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert store.run(run_id).state == "cancelled"  # type: ignore[union-attr]
    assert not store.is_to_stop(run_id)


def test_a_store_that_logs_while_it_is_written_stops_nobody(
    request_of_two: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(record_module, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(record_module, "ALIVE_SECONDS", 0.0)
    write_run = Store.write_run

    def slow(self: Store, run: Run) -> None:
        logging.getLogger("storage.toy").warning("the store does not answer")
        time.sleep(0.002)
        write_run(self, run)

    monkeypatch.setattr(Store, "write_run", slow)

    def execute(step: object, inputs: object, force: bool, progress: Progress) -> StageResult:
        for done in range(200):
            progress(done, 200, "shards")
            logging.getLogger("tasks.toy").info("at work")
        return StageResult(build(request_of_two.store, step.stage.name), cached=False, seconds=0.0)  # type: ignore[attr-defined]

    names = [f"r{n}" for n in range(3)]
    runs = [threading.Thread(target=run_stages, args=(request_of_two, n, execute), daemon=True) for n in names]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join(60)
        assert not thread.is_alive()
    assert [request_of_two.store.run(name).state for name in names] == ["done"] * 3  # type: ignore[union-attr]
    for name in names:  # and none writes down what another one tells
        text = b"".join(read_log(request_of_two.store, name)).decode()
        assert [other for other in names if f"run {other}:" in text] == [name]


def test_a_second_signal_does_not_keep_the_end_from_being_written(
    request_of_two: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run = Store.write_run

    def signalled(self: Store, run: Run) -> None:
        if run.state == "cancelled":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)  # it is handled between two steps of the interpreter
        write_run(self, run)

    monkeypatch.setattr(Store, "write_run", signalled)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    raise_when_told()
    try:
        _, found = run(request_of_two, Terminated())
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
    assert found.state == "cancelled"


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "the terminal is closed")])
def test_a_console_that_cannot_show_any_more_ends_no_run(request_of_two: Request, error: OSError) -> None:
    from flows.command.running.run import _or_silent

    shown = []

    def show(event: Event) -> None:
        shown.append(event)
        raise error

    with listening(_or_silent(show)):
        _, found = run(request_of_two)
    assert found.state == "done"
    assert len(shown) == 1


def test_a_killed_run_has_crashed(request_of_two: Request) -> None:
    present = new_record(request_of_two, "r")
    assert state_of(present) == "running"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child.wait()
    assert state_of(present.model_copy(update={"process_id": child.pid})) == "crashed"
    assert state_of(present.model_copy(update={"process_start": "1"})) == "crashed"


def test_a_run_on_another_machine_has_crashed_when_it_is_silent(request_of_two: Request) -> None:
    there = new_record(request_of_two, "r").model_copy(update={"machine": "another", "process_id": os.getpid()})
    assert state_of(there.model_copy(update={"updated": now()})) == "running"
    assert state_of(there.model_copy(update={"updated": "2026-01-01T00:00:00.000+00:00"})) == "crashed"


def test_a_record_that_is_written_once_is_there_at_the_end_alone(request_of_two: Request) -> None:
    with recorded(request_of_two.store, new_record(request_of_two, "r"), at_the_end=True):
        assert request_of_two.store.run("r") is None


def test_a_run_of_version_1_is_read_in_the_words_of_version_2() -> None:
    def old(error: str) -> dict[str, object]:
        stages = [{"stage": "train", "key": "", "state": "failed"}, {"stage": "pack", "key": "p", "state": "done"}]
        return {"state": "failed", "error": error, "stages": stages}

    for error, state in (
        ("KeyboardInterrupt: ", "interrupted"),
        ("_Terminated: ", "cancelled"),
        ("TerminationSignal: ", "cancelled"),
        ("Fault: no room", "failed"),
    ):
        new = _told_apart(old(error))
        assert (new["state"], [stage["state"] for stage in new["stages"]]) == (state, [state, "done"])


# ---- the log --------------------------------------------------------------------------------------


def test_the_log_is_whole_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    log = RunLog(store, "r")
    lines = [f"{number} {'x' * 5000} ü\udcff" for number in range(200)]
    for number, line in enumerate(lines):
        log.add(line)
        if number % 7 == 0:
            log.flush()
    log.flush()
    pieces = list(read_log(store, "r"))
    assert len(pieces) > 2
    assert max(map(len, pieces)) < PIECE_BYTES + 7 * 6000
    assert b"".join(pieces).decode() == "".join(f"{line}\n" for line in lines).replace("\udcff", "\\udcff")
    assert b"".join(read_log(store, "r", 1)) == b"".join(pieces[1:])


def test_a_log_that_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    log = RunLog(store, "r")
    log.add("first")
    with monkeypatch.context() as patch:
        patch.setattr(type(store.backend), "write", lambda *_: (_ for _ in ()).throw(Fault("away")))
        with pytest.raises(Fault):
            log.flush()
    log.add("second")
    log.flush()
    assert b"".join(read_log(store, "r")) == b"first\nsecond\n"


# ---- events and pace ------------------------------------------------------------------------------


def test_every_event_and_each_of_its_fields_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/events.md").read_text()
    for event in EVENTS:
        title = "-".join(word.lower() for word in re.findall("[A-Z][a-z]+", event.__name__))
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{title}` |")]
        for field in {field.name for field in fields(event)} - {"run", "time"}:
            assert f"`{field}`" in row, (title, field)


def test_events_are_json(request_of_two: Request) -> None:
    heard, _ = run(request_of_two)
    for event in heard:
        assert json.loads(json.dumps(event.to_json())) | {"stages": 0} == event.to_json() | {"stages": 0}


def test_pace_counts_from_the_first_report_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace()
    assert pace.of(50, 150, "steps") == (None, None)  # resumed: what was there cost no time
    clock[0] += 10
    assert pace.of(70, 150, "steps") == (2.0, 40.0)
    assert pace.of(10, 20, "shards") == (None, None)
    clock[0] += 5
    assert pace.of(10, 20, "shards") == (None, None)
    clock[0] += 5
    assert pace.of(20, 20, "shards") == (1.0, 0.0)
    assert pace.of(5, 20, "shards") == (None, None)  # it begins again


def test_progress_of_more_than_the_total_leaves_no_time_below_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace()
    pace.of(0, 10, "bytes")
    clock[0] = 2.0
    assert pace.of(12, 10, "bytes") == (6.0, 0.0)


def log_text(store: Store, run_id: str) -> str:
    return b"".join(read_log(store, run_id)).decode()


def test_what_was_logged_before_the_run_began_stands_first_in_its_log(request_of_two: Request) -> None:
    with kept_until_the_run_begins():
        logging.getLogger("storage.toy").warning("the store does not answer")
        with kept_until_the_run_begins():
            logging.getLogger("flows.toy").info("a dead run was marked")
        first, second = run(request_of_two)[1].run_id, run(request_of_two)[1].run_id
    lines = log_text(request_of_two.store, first).splitlines()
    assert lines[0].endswith("warning storage.toy: the store does not answer")
    assert lines[1].endswith("flows.toy: a dead run was marked")
    assert "begins" in lines[2]
    assert "does not answer" not in log_text(request_of_two.store, second)


def test_what_a_run_logs_is_not_kept_for_the_next(request_of_two: Request) -> None:
    with kept_until_the_run_begins():
        assert early_lines("first") == []
        logging.getLogger("tasks.toy").info("said by a stage")
        assert early_lines("second") == []
    assert early_lines("third") == []


def test_a_logged_exception_has_its_traceback_in_the_log(request_of_two: Request) -> None:
    def execute(step: object, inputs: object, force: bool, progress: Progress) -> StageResult:
        try:
            raise ZeroDivisionError("by 0")
        except ZeroDivisionError:
            logging.getLogger("tasks.toy").exception("it went wrong")
        return StageResult(build(request_of_two.store, step.stage.name), cached=False, seconds=0.0)  # type: ignore[attr-defined]

    run_stages(request_of_two, "r", execute)
    text = log_text(request_of_two.store, "r")
    assert "tasks.toy: it went wrong\nTraceback (most recent call last):" in text
    assert "\nZeroDivisionError: by 0\n" in text
