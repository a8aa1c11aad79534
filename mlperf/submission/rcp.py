"""Reference convergence points (RCPs) in the format of the official checker: created from runs, or read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlperf.benchmarks import BENCHMARKS, Benchmark
from mlperf.compliance.log_reader import Log, as_text, is_number
from mlperf.compliance.warm_start import require_from_scratch
from mlperf.submission.json_file import read_json
from mlperf.util.errors import RunError, UsageError

_MIN_RUNS = 3  # the checker ignores the fastest and the slowest run


def make_rcp(logs: Sequence[Log], benchmark: Benchmark, submitter: str, platform: str) -> dict[str, object]:
    """Return one reference convergence point from twice as many runs as a result has.

    RunError if a run did not start from scratch or did not converge, if two runs have the same seed, or if their
    batch sizes differ.
    """
    size = logs[0].value("global_batch_size")
    if not is_number(size):
        raise RunError(f"{logs[0].path}: global_batch_size is {as_text(size)}, must be a number")
    seeds: dict[str, Path] = {}
    for log in logs:
        if log.value("global_batch_size") != size:
            raise RunError(f"{log.path}: global_batch_size differs from that of {logs[0].path}")
        first = seeds.setdefault(str(log.value("seed")), log.path)
        if first is not log.path:
            raise RunError(f"{log.path}: has the same seed as {first}; the seeds of all runs must differ")
    names = [entry.key for entry in benchmark.hyperparameters if entry.setting is not None]
    point = {
        "Benchmark": benchmark.name,
        "Creator": submitter,
        "When": logs[0].path.stem,
        "Platform": platform,
        "BS": size,
        "Hyperparams": {name: logs[0].value(name) for name in names},
        "Epochs to converge": [_epochs_to_converge(log, benchmark.auc_target) for log in logs],
    }
    return {f"{benchmark.name}_ref_{size}": point}


def _epochs_to_converge(log: Log, target: float) -> float:
    """Return the epoch of the last evaluation, rounded to 3 digits. RunError unless the run is usable."""
    require_from_scratch(log)
    if log.status != "success":
        raise RunError(f"{log.path}: run_stop has status {log.status}; all reference runs must converge")
    if log.best is None or log.best.value < target:
        raise RunError(f"{log.path}: did not reach AUC {target}; all reference runs must converge")
    last = log.all("eval_accuracy")[-1]
    epoch = last.metadata.get("epoch_num")
    if not is_number(epoch):
        raise RunError(f"{log.path}:{last.line}: epoch_num is {as_text(epoch)}, must be a number")
    return round(epoch, 3)


def check_rcp_file(file: Path) -> set[str]:
    """Return the benchmarks of the convergence points in a file.

    UsageError if the official checker cannot read them.
    """
    content = read_json(file, "--rcps")
    if not isinstance(content, dict) or not content:
        raise UsageError(f"--rcps={file}: not one JSON object with convergence points")
    for name, point in content.items():
        if (fault := _fault(point)) is not None:
            raise UsageError(f"--rcps={file}: {name}: {fault}")
    return {point["Benchmark"] for point in content.values()}


def _fault(point: object) -> str | None:
    """Return the problem with one convergence point, or None."""
    if not isinstance(point, dict):
        return "not a JSON object"
    if point.get("Benchmark") not in list(BENCHMARKS):
        return f"Benchmark is {as_text(point.get('Benchmark'))}, not {' or '.join(BENCHMARKS)}"
    if not is_number(point.get("BS")) or point["BS"] <= 0:
        return f"BS is {as_text(point.get('BS'))}, not a number above 0"
    if not isinstance(point.get("Hyperparams"), dict):
        return "Hyperparams is not a JSON object"
    epochs = point.get("Epochs to converge")
    if not isinstance(epochs, list) or len(epochs) < _MIN_RUNS or not all(map(is_number, epochs)):
        return f"Epochs to converge is {as_text(epochs)}, not a list of {_MIN_RUNS} numbers or more"
    return None
