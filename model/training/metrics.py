"""Metrics: lines of JSON that become the report `metrics.jsonl`, and a copy for Weights & Biases.

`loss` is the mean over the steps since the line before, since single steps vary; `grad_norm` is that of the step.
`step`, `loss`, `lr`, `grad_norm`, `tokens` and `val_loss` are the same whenever a training is repeated or resumed;
`tokens_per_second` and `seconds` are not.
"""

import json
import logging
import queue
import threading
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

WANDB_SECONDS = 30
"""How long Weights & Biases may take to start and to finish before the training goes on without it."""


class MetricsLog:
    """The metrics so far, in the order in which they were measured."""

    def __init__(self, lines: list[str], copy: "WandbCopy | None") -> None:
        self.lines = list(lines)
        self._copy = copy
        for line in self.lines:  # a resumed run shows its whole history
            self._forward(json.loads(line))

    def add(self, record: dict[str, float]) -> None:
        """Append a record; `step` is its first field."""
        self.lines.append(json.dumps(record) + "\n")
        self._forward(record)

    def _forward(self, record: dict[str, float]) -> None:
        if self._copy is not None:
            self._copy.add(record)


class WandbCopy:
    """Sends records to Weights & Biases from a thread of its own, so that a training neither waits nor fails.

    Called by the process of rank 0 only. The first failure is logged, later ones are not.
    """

    def __init__(self, mode: str, name: str, config: dict[str, Any], folder: Path) -> None:
        self._mode: Any = mode
        self._name, self._config, self._folder = name, config, folder
        self._records: queue.Queue[dict[str, float] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send, name="wandb", daemon=True)
        self._thread.start()

    def add(self, record: dict[str, float]) -> None:
        """Queue a record."""
        self._records.put(record)

    def finish(self) -> Path | None:
        """Wait a little for what is queued; return the file of an offline run, for `wandb sync`."""
        self._records.put(None)
        self._thread.join(WANDB_SECONDS)
        if self._thread.is_alive():
            log.warning("Weights & Biases did not finish in %d s; going on without it", WANDB_SECONDS)
        if self._mode != "offline":
            return None
        return next(iter(sorted(self._folder.rglob("*.wandb"))), None)

    def _send(self) -> None:
        try:
            import wandb  # noqa: PLC0415 - a second that most runs need not pay

            settings = wandb.Settings(
                init_timeout=WANDB_SECONDS, silent=True, console="off", disable_git=True, x_disable_meta=True
            )
            run = wandb.init(
                project="pile-pipeline",
                id=self._name,
                resume="allow",
                mode=self._mode,
                config=self._config,
                dir=self._folder,
                settings=settings,
            )
            while (record := self._records.get()) is not None:
                run.log({key: value for key, value in record.items() if key != "step"}, step=int(record["step"]))
            run.finish()
            wandb.teardown()  # an offline file is complete only when the process that writes it has ended
        except Exception as error:  # noqa: BLE001 - whatever happens there is no reason to stop a training
            log.warning("metrics no longer go to Weights & Biases: %s: %s", type(error).__name__, error)
