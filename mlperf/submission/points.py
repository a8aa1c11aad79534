"""Reference convergence points in the official checker's format: made from runs, and read from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlperf.compliance.log import Log, is_number, shown
from mlperf.compliance.official import BENCHMARK
from mlperf.util.errors import RunError, UsageError

_HYPERPARAMETERS = (
    *("opt_base_learning_rate", "opt_learning_rate_warmup_steps", "lr_decay_start_steps"),
    *("sgd_opt_base_learning_rate", "sgd_opt_learning_rate_decay_steps"),
)
_LEAST_RUNS = 3  # the checker leaves out the first and the last to converge


def convergence_points(logs: Sequence[Log], submitter: str, platform: str, target: float) -> dict[str, object]:
    """Return reference convergence points in the official checker's format, from twice a result's runs.

    RunError if a run did not converge, two have the same seed, or their batch sizes differ.
    """
    epochs = []
    seeds: dict[str, Path] = {}
    size = logs[0].value("global_batch_size")
    if not is_number(size):
        raise RunError(f"{logs[0].path}: global_batch_size is {shown(size)}, not a number")
    for log in logs:
        if log.stopped != "success":
            raise RunError(f"{log.path}: the run ended {log.stopped}; every run of a reference must converge")
        if log.best is None or log.best.value < target:
            raise RunError(f"{log.path}: no AUC of {target}; every run of a reference must converge")
        if log.value("global_batch_size") != size:
            raise RunError(f"{log.path}: global_batch_size is not that of {logs[0].path}")
        first = seeds.setdefault(str(log.value("seed")), log.path)
        if first is not log.path:
            raise RunError(f"{log.path}: its seed is that of {first}; every run must have its own")
        last = log.all("eval_accuracy")[-1]
        if not is_number(last.metadata.get("epoch_num")):
            raise RunError(
                f"{log.path}:{last.line}: epoch_num is {shown(last.metadata.get('epoch_num'))}, not a number"
            )
        epochs.append(round(last.metadata["epoch_num"], 3))
    point = {
        "Benchmark": BENCHMARK,
        "Creator": submitter,
        "When": logs[0].path.stem,
        "Platform": platform,
        "BS": size,
        "Hyperparams": {name: logs[0].value(name) for name in _HYPERPARAMETERS},
        "Epochs to converge": epochs,
    }
    return {f"{BENCHMARK}_ref_{size}": point}


def check_points(file: Path) -> None:
    """Raise UsageError if a file does not hold convergence points as the official checker reads them."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--rcps={file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--rcps={file}: not JSON: {error}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"--rcps={file}: not one JSON object of convergence points")
    for name, point in content.items():
        if (wrong := _wrong_field(point)) is not None:
            raise UsageError(f"--rcps={file}: {name}: {wrong}")


def _wrong_field(point: object) -> str | None:
    """Return what is wrong with one convergence point."""
    if not isinstance(point, dict):
        return "not a JSON object"
    if point.get("Benchmark") != BENCHMARK:
        return f"Benchmark is {shown(point.get('Benchmark'))}, not {BENCHMARK}"
    if not is_number(point.get("BS")) or point["BS"] <= 0:
        return f"BS is {shown(point.get('BS'))}, not a number above 0"
    if not isinstance(point.get("Hyperparams"), dict):
        return "Hyperparams is not a JSON object"
    epochs = point.get("Epochs to converge")
    if not isinstance(epochs, list) or len(epochs) < _LEAST_RUNS or not all(map(is_number, epochs)):
        return f"Epochs to converge is {shown(epochs)}, not a list of {_LEAST_RUNS} numbers or more"
    return None
