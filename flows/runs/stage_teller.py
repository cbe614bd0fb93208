"""What is told of one stage of a run."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from flows.runs.events import StageFinished, StageProgress, StageStarted, tell
from storage.artifacts.records import StageState
from tasks.core.pace import Pace
from tasks.core.stage import StageResult
from tasks.core.stopping import state_after


class StageTeller:
    """Tells of one stage of a run: its beginning, its progress, its end."""

    def __init__(self, run_id: str, name: str, number: int, of: int) -> None:
        self.place: dict[str, Any] = {"run": run_id, "stage": name, "number": number, "of": of}
        self.name = name
        self.started = time.monotonic()
        self.pace = Pace()
        self.is_finished = False

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell of the beginning, and of an end by an exception."""
        tell(StageStarted(**self.place))
        try:
            yield
        except BaseException as error:
            if not self.is_finished:
                self._finish(state_after(error), time.monotonic() - self.started)
            raise

    def progress(self, done: int, total: int, unit: str, note: str = "", /) -> None:
        """Tell how far it is."""
        rate, eta = self.pace.of(done, total, unit)
        tell(StageProgress(**self.place, done=done, total=total, unit=unit, rate=rate, eta_seconds=eta, note=note))

    def finished(self, result: StageResult) -> None:
        """Tell of the end with a result."""
        manifest = result.artifact.manifest
        self._finish(
            "cached" if result.cached else "done",
            result.seconds,
            key=manifest.key,
            content_digest=manifest.content_digest,
            counts=manifest.counts,
        )

    def _finish(
        self,
        state: StageState,
        seconds: float,
        key: str = "",
        content_digest: str = "",
        counts: dict[str, int] | None = None,
    ) -> None:
        self.is_finished = True
        tell(
            StageFinished(
                **self.place,
                state=state,
                seconds=round(seconds, 3),
                key=key,
                content_digest=content_digest,
                counts=counts or {},
            )
        )
