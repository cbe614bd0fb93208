"""What a stage function is given besides its config and its inputs."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from storage.artifacts.records import Part, StoredFile
from storage.artifacts.writer import ArtifactWriter
from tasks.core.cores import usable_cores
from tasks.core.execution import Execution

log = logging.getLogger(__name__)

TABLES = "tables.json"
"""Report role: titles and rows of the tables that the Prefect UI and `pile show` print."""


class Progress(Protocol):
    """Is told how far a stage is."""

    def __call__(self, done: int, total: int, unit: str, note: str = "", /) -> None:
        """Take that `done` of `total` units are done, and what else there is to say, such as the loss."""


def nobody_watches(done: int, total: int, unit: str, note: str = "", /) -> None:
    """Be the progress of which nobody wants to know."""


class StageContext:
    """One attempt at a stage: where its output goes, how much machine it may use, whom it tells."""

    def __init__(self, writer: ArtifactWriter, execution: Execution, progress: Progress) -> None:
        self.writer = writer
        self.execution = execution
        self.workers = execution.workers or usable_cores()
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

    def report_file(self, role: str, path: Path) -> StoredFile:
        """Keep a finished local file for people beside the artifact, moved away; return where it is kept."""
        stored = self.writer.report_file(role, path)
        self.reports.append(stored)
        return stored

    def report_json(self, role: str, value: object) -> None:
        """Keep a JSON value for people beside the artifact."""
        self.report(role, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def finish_reports(self) -> list[StoredFile]:
        """Write the tables and return all reports."""
        if self._tables:
            self.report_json(TABLES, self._tables)
        return self.reports
