"""What a stage function is given besides its config and its inputs."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from storage.config import Config
from storage.records import Part, StoredFile
from storage.writer import ArtifactWriter

log = logging.getLogger(__name__)

TABLES = "tables.json"
"""Report role: titles and rows of the tables that the Prefect UI and `pile show` print."""

LOGGERS = ("storage", "tasks", "model", "flows", "datatrove")
"""The loggers whose lines people see: ours, and datatrove's as forwarded by tasks.shards."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit) as a stage advances."""


class Execution(Config):
    """How and where the work runs. It is not meant to change a result, so none of it is part of a key.

    The data stages give the same bytes with any of it. A training or an evaluation does so on one kind of machine
    with the same number of threads and processes: otherwise sums are rounded in another order.
    """

    workers: int = Field(default=0, ge=0)
    """Processes for the data stages; 0 means one per core."""
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto"
    """Where the model is trained and evaluated; `auto` takes a GPU if there is one."""
    engine: Literal["local", "deepspeed"] = "local"
    """Training engine: `local` is plain torch in one process, `deepspeed` shards over `processes`."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What DeepSpeed shards: nothing, optimizer states, gradients too, parameters too."""
    processes: int = Field(default=1, ge=1)
    """Training processes on this machine."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of each training process; 0 means all cores, divided."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Whether metrics also go to Weights & Biases; a failure there never stops a run."""


class Build:
    """One attempt at a stage: where its output goes, how much machine it may use, whom it tells."""

    def __init__(self, writer: ArtifactWriter, execution: Execution, progress: Progress) -> None:
        self.writer = writer
        self.execution = execution
        self.workers = execution.workers or os.cpu_count() or 1
        self.progress = progress
        self.reports: list[StoredFile] = []
        self._tables: dict[str, list[dict[str, Any]]] = {}

    def finished_parts(self, wanted: Sequence[str]) -> dict[str, Part]:
        """Return those of the wanted parts that are committed already, by name."""
        finished = self.writer.parts()
        found = {name: finished[name] for name in wanted if name in finished}
        if found:
            log.info("resuming %s: %d of %d parts are done", self.writer.stage, len(found), len(wanted))
        return found

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Show a table in the UI and in `pile show`. Cells are text or numbers."""
        self._tables[title] = rows

    def report(self, role: str, data: bytes) -> None:
        """Keep a file for people beside the artifact."""
        self.reports.append(self.writer.report(role, data))

    def report_json(self, role: str, value: object) -> None:
        """Keep a JSON value for people beside the artifact."""
        self.report(role, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def finish_reports(self) -> list[StoredFile]:
        """Write the tables and return all reports."""
        if self._tables:
            self.report_json(TABLES, self._tables)
        return self.reports
