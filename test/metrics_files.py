"""Metrics files for tests, written record by record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

START: dict[str, Any] = {
    **{"event": "run_start", "time": 1000.0, "version": "0.1.0", "engine": "cpu (loops)", "started_from": None},
    **{"seed": 1, "benchmark": "dlrm", "edition": "2.1.0", "auc_target": 0.8025, "settings": {}, "system": {}},
}
BATCHES = 10


def at(event: str, time: float, iteration: int, epoch: int = 0, **values: Any) -> dict[str, Any]:
    return {
        **{"event": event, "time": time, "epoch": epoch, "iteration": iteration, "batches_per_epoch": BATCHES},
        **values,
    }


def progress(
    time: float, iteration: int, loss: float | None = 0.5, epoch: int = 0, **values: Any
) -> dict[str, Any]:
    samples = (epoch * BATCHES + iteration) * 64
    rest = {"accuracy": 0.75, "ms_per_iteration": 2.0, "samples": samples, "learning_rate": 0.1, **values}
    return at("progress", time, iteration, epoch, loss=loss, **rest)


def evaluation(time: float, iteration: int, auc: float | None = 0.7, epoch: int = 0) -> dict[str, Any]:
    names = ("recall", "precision", "f1", "average_precision")
    metrics = {"accuracy": 0.75, "auc": auc, **dict.fromkeys(names, 0.5), "only_label": None}
    best = {"best_accuracy": 0.75, "best_auc": auc, "improved": True}
    return at("evaluation_stop", time, iteration, epoch, **metrics, **best, seconds=0.5)


def stop(time: float, iteration: int, epoch: int = 0, outcome: str = "success") -> dict[str, Any]:
    return at("run_stop", time, iteration, epoch, outcome=outcome)


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path
