"""Metrics, and the copy for Weights & Biases that must neither fail nor hold up a training."""

import json
import logging
import sys
import threading

import pytest

from model.training import metrics
from model.training.metrics import MetricsLog, WandbCopy

RECORDS = [{"step": 1, "loss": 4.5, "lr": 0.1}, {"step": 2, "val_loss": 4.25}]


def test_metrics_continue_those_of_a_checkpoint() -> None:
    first = MetricsLog([], None)
    first.add(RECORDS[0])
    second = MetricsLog(first.lines, None)
    second.add(RECORDS[1])
    assert [json.loads(line) for line in second.lines] == RECORDS


def test_wandb_that_cannot_be_imported_is_reported_once(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    copy = WandbCopy("online", "train-x", {}, tmp_path)
    log = MetricsLog([], copy)
    for record in RECORDS:
        log.add(record)
    assert copy.finish() is None
    assert len(log.lines) == 2
    assert [r.levelno for r in caplog.records if "Weights & Biases" in r.message] == [logging.WARNING]


def test_wandb_that_hangs_is_left_behind(tmp_path, monkeypatch, caplog) -> None:
    class Hanging:
        def __getattr__(self, name: str) -> object:
            threading.Event().wait()

    monkeypatch.setitem(sys.modules, "wandb", Hanging())
    monkeypatch.setattr(metrics, "WANDB_SECONDS", 0.1)
    copy = WandbCopy("online", "train-x", {}, tmp_path)
    copy.add(RECORDS[0])
    assert copy.finish() is None
    assert "did not finish" in caplog.text


@pytest.mark.slow
def test_wandb_offline_leaves_a_file_with_all_records(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "")
    copy = WandbCopy("offline", "train-x", {"max_steps": 2}, tmp_path)
    log = MetricsLog([json.dumps(RECORDS[0]) + "\n"], copy)  # a resumed run shows its history, too
    log.add(RECORDS[1])
    run = copy.finish()
    assert run is not None
    content = run.read_bytes()
    for expected in (b"val_loss", b"4.25", b"4.5", b"max_steps"):
        assert expected in content
