"""The pool of worker processes: all items are worked on, errors arrive, and nothing outlives the parent."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from loguru import logger as loguru_logger

import tasks
from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from storage.errors import InputError, LostWorkersError
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.executors.local import for_each_shard


@dataclass(frozen=True)
class Note:
    """Leaves a file for each item, or refuses it."""

    folder: Path
    refused: str = ""

    def __call__(self, item: str) -> None:
        if item == self.refused:
            raise InputError(f"{item} cannot be used")
        (self.folder / item).write_text(str(os.getpid()))


def make_context(folder: Path, workers: int) -> StageContext:
    writer = ArtifactWriter(Store(str(folder / "store")), "filter", "0" * 16)
    return StageContext(writer, Execution(workers=workers), lambda done, total, unit, *_: None)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_is_worked_on_in_as_many_processes_as_there_may_be(tmp_path: Path, workers: int) -> None:
    items = [f"item-{number}" for number in range(5)]
    (tmp_path / "notes").mkdir()
    for_each_shard(make_context(tmp_path, workers), items, Note(tmp_path / "notes"))
    notes = {path.name: int(path.read_text()) for path in (tmp_path / "notes").iterdir()}
    assert sorted(notes) == items
    assert ({*notes.values()} == {os.getpid()}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_error_of_a_worker_is_raised_as_it_is(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError, match=r"^b cannot be used$"):
        for_each_shard(make_context(tmp_path, workers), ["a", "b"], Note(tmp_path, refused="b"))


@dataclass(frozen=True)
class Warn:
    """Says that something is wrong, as a store does that is away."""

    def __call__(self, item: str) -> None:
        logging.getLogger("storage.backends.patient").warning("no answer\nfor %s", item)
        logging.getLogger("storage").error("%s {is} lost", item)


@pytest.mark.parametrize("workers", [1, 2])
def test_warnings_are_heard_whichever_process_does_the_work(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for_each_shard(make_context(tmp_path, workers), ["a", "b"], Warn())
    said = " ".join(" ".join(record.getMessage().split()) for record in caplog.records)
    for item in "ab":
        assert said.count(f"no answer for {item}") == said.count(f"{item} {{is}} lost") == 1


def test_work_in_this_process_leaves_the_console_to_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("datatrove"), "disabled", True)  # our own copy, if it is shown here

    def say_twice(item: str) -> None:
        sys.stderr.write(f"{item} shown\n")
        elsewhere = threading.Thread(target=lambda: sys.stderr.write(f"{item} shown elsewhere\n"))
        elsewhere.start()
        elsewhere.join()

    for_each_shard(make_context(tmp_path, 1), ["a", "b"], say_twice)
    loguru_logger.warning("a line of a library")
    shown = [f"{item} {text}" for item in "ab" for text in ("shown", "shown elsewhere")]
    assert capsys.readouterr().err.splitlines() == shown


@dataclass(frozen=True)
class Deadly:
    """Kills the worker that is given the item, if there are fewer than `deaths` notes of that."""

    folder: Path
    item: str
    deaths: int

    def __call__(self, item: str) -> None:
        if item == self.item and len(list(self.folder.iterdir())) < self.deaths:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("deaths", [1, 2])
def test_shard_whose_worker_is_killed_is_done_again_once(tmp_path: Path, deaths: int) -> None:
    (tmp_path / "notes").mkdir()
    context, shown = make_context(tmp_path, 2), []
    context.progress = lambda done, total, unit, *_: shown.append(done)
    failure = (
        pytest.raises(LostWorkersError, match="filter of shard b cost 2")
        if deaths == 2
        else contextlib.nullcontext()
    )
    with failure:
        for_each_shard(context, ["a", "b", "c"], Deadly(tmp_path / "notes", "b", deaths), name="shard {}".format)
    assert (shown[-1] == 3) == (deaths == 1)


PARENT = """
import os
import sys
import time
from pathlib import Path

from storage.artifacts.store import Store
from storage.artifacts.writer import ArtifactWriter
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.executors.local import for_each_shard


class Work:
    def __call__(self, item):
        os.write(1, item.encode() + b"\\n")  # one write: lines of several processes must not mix
        if item == "long":
            time.sleep(3600)


if __name__ == "__main__":
    writer = ArtifactWriter(Store(sys.argv[1]), "filter", "0" * 16)
    build = StageContext(writer, Execution(workers=3), lambda done, total, unit, *_: None)
    for_each_shard(build, sys.argv[2:], Work())
"""


@pytest.mark.parametrize("items", [("long", "long", "long"), ("long", "short", "short")], ids=["busy", "waiting"])
def test_killed_parent_leaves_no_process(tmp_path: Path, items: tuple[str, ...]) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(tasks.__file__).parents[1])}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store"), *items],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    try:
        assert sorted(parent.stdout.readline().decode().strip() for _ in items) == sorted(items)
        parent.kill()
        # Workers and fork server have inherited the pipe: it ends when the last of them has.
        assert parent.communicate(timeout=60) == (b"", None)
        assert parent.returncode == -signal.SIGKILL
    except BaseException:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        raise
