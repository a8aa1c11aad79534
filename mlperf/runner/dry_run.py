"""What a run would do, and what it needs (--dry-run). Nothing is prepared, trained or written."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

from mlperf.benchmarks import dashed
from mlperf.data.prepared.dataset import PreparedData
from mlperf.distributed.agreement import decided_by_first
from mlperf.distributed.processes import current
from mlperf.export.predictions import file_bytes
from mlperf.models.dlrm import Architecture, top_widths
from mlperf.runner.data import existing_data, prepared_prefix
from mlperf.runner.files import output_files
from mlperf.runner.memory import MemoryBudget, RunSizes, checkpoint_bytes, memory_budgets, require_run_memory
from mlperf.runner.model import architecture_of
from mlperf.runner.output_folder import last_checkpoint
from mlperf.runner.result import Result
from mlperf.runner.step_time import StepTime, measure_steps
from mlperf.settings.dataset import PreparationSettings
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint import saved_place
from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.outcome import Outcome
from mlperf.util.memory import shown_bytes
from mlperf.util.plural import counted

_log = logging.getLogger(__name__)

_SHOWN_NEEDS = 4


def dry_run(settings: Settings, device: torch.device) -> Result:
    """Print the plan of the run, and the memory, disk and time that it needs. RunError if the memory is too small.

    The time is measured with a model whose tables have at most 512 MB, and rows that are drawn. The first process
    does all that, so that no other one looks at the folder of the run while it is removed again.
    """
    decided_by_first(lambda: _print_plan(settings, device))
    return Result(Outcome.SUCCESS)


def _print_plan(settings: Settings, device: torch.device) -> None:
    print("plan of the run; nothing is prepared, trained or written")
    prepared = None
    if settings.data.generation == "dataset":
        prepared = existing_data(settings.data, settings.given)
        if prepared is None:
            _print_preparation(settings)
            return
    architecture, sizes = architecture_of(settings, prepared), RunSizes.of(settings, prepared)
    _print("data", _data(settings, prepared, sizes))
    _print("model", _model(architecture))
    trained = _trained(settings)
    _print("start", _start(settings, trained))
    _print("work", _work(settings, sizes))
    budgets = list(memory_budgets(settings, architecture, device, sizes))
    for budget in budgets:
        _print("memory", *_memory(budget))
    _print("disk", *_disk(settings, architecture, sizes))
    _print("files", ", ".join(_files(settings)) or "none is written")
    require_run_memory(settings, architecture, device, sizes)
    if current().size > 1:
        _print("time", "is measured in runs of one process only")
        return
    times = measure_steps(settings, architecture, device, sizes)
    _print("engine", times.engine)
    _print("time", *_time(settings, sizes, times, trained))


def _print(what: str, *lines: str) -> None:
    for number, line in enumerate(lines):
        print(f"{what if number == 0 else '':<10}{line}", flush=True)


def _print_preparation(settings: Settings) -> None:
    """Print what is known before the data is prepared."""
    # Imported late: importing compiles its numba functions.
    from mlperf.data.prepare.estimate import estimate

    prefix = prepared_prefix(settings.data)
    found = estimate(PreparationSettings.of(settings.data, prefix))
    _print(
        "data",
        f"{prefix}: is prepared first, from {shown_bytes(found.text_bytes)} of text in "
        f"{counted(found.inputs, 'file')}, about {found.rows:,} rows",
    )
    _print(
        "disk",
        f"{shown_bytes(found.disk_bytes)} while the data is prepared, of which {shown_bytes(found.file_bytes)} "
        f"stay; {_free(prefix.parent)}",
    )
    seconds = _duration(found.text_seconds)
    _print("time", f"preparation: at least {seconds}, for parsing the text and numbering its ids")
    _print("", "model, memory and time of the training are known when the data is prepared")


def _data(settings: Settings, prepared: PreparedData | None, sizes: RunSizes) -> str:
    if prepared is None:
        return f"{settings.data.generation}, {counted_samples(sizes.train_samples)} in an epoch"
    train = f"{prepared.train}: {prepared.train_rows:,} training rows, "
    return f"{train}{prepared.test_rows:,} test rows, {prepared.val_rows:,} validation rows"


def counted_samples(number: int) -> str:
    """Return a number of samples as text."""
    return f"{number:,} sample" if number == 1 else f"{number:,} samples"


def _model(architecture: Architecture) -> str:
    rows, top = architecture.rows_per_table, top_widths(architecture)
    widths = [*pairwise(architecture.mlp_bot), *pairwise(top)]
    weights = sum(inputs * outputs + outputs for inputs, outputs in widths)
    if architecture.has_cross_network:
        weights += architecture.cross_layers * top[0] * (2 * architecture.cross_rank + 1)
    return (
        f"{counted(len(rows), 'table')} with {sum(rows):,} rows of {architecture.dimension} "
        f"{architecture.embedding_precision}, bottom MLP {dashed(architecture.mlp_bot)}, interaction "
        f"{architecture.interaction_op}, top MLP {dashed(top)}: {weights:,} weights outside the tables"
    )


def _trained(settings: Settings) -> tuple[int, int]:
    """Return the epoch, and the batches of it, at which the training resumes: (0, 0) for a new one."""
    path = settings.load_model
    if path is None or settings.inference_only:
        return 0, 0
    with open_checkpoint(path) as file:
        return saved_place(file.contents, path)


def _start(settings: Settings, trained: tuple[int, int]) -> str:
    if settings.load_model is not None and settings.inference_only:
        return f"the checkpoint {settings.load_model}"
    if settings.load_model is not None:
        epoch, iteration = trained
        return f"the checkpoint {settings.load_model}, after iteration {iteration} of epoch {epoch}"
    if settings.load_weights is not None:
        return f"the weights in {settings.load_weights}"
    return f"weights that are drawn with seed {settings.seed}"


def _work(settings: Settings, sizes: RunSizes) -> str:
    if settings.inference_only:
        return f"evaluation of {counted_samples(sizes.test_samples)} in batches of {settings.data.test_batch_size}"
    batches, tests = _batches(settings, sizes), _evaluations(settings, sizes)
    training = settings.training
    steps = training.epochs * math.ceil(batches / training.accumulate)
    return (
        f"{counted(training.epochs, 'epoch')} of {batches:,} batches of {settings.data.batch_size:,} samples: "
        f"{steps:,} steps of {training.optimizer}, at most {counted(tests, 'evaluation')}"
    )


def _batches(settings: Settings, sizes: RunSizes) -> int:
    """Return the batches of an epoch."""
    return math.ceil(sizes.train_samples / settings.data.batch_size)


def _evaluations(settings: Settings, sizes: RunSizes) -> int:
    """Return the number of evaluations of the whole training, if no threshold is reached before the end."""
    interval = _interval(settings, sizes)
    return settings.training.epochs * math.ceil(_batches(settings, sizes) / interval) if interval else 0


def _interval(settings: Settings, sizes: RunSizes) -> int:
    """Return the batches between evaluations, 0 if there are none."""
    benchmark = settings.edition.benchmark
    return settings.training.batches_between_tests(sizes.train_samples, settings.data.batch_size, benchmark)


def _memory(budget: MemoryBudget) -> Iterator[str]:
    total = sum(need.size for need in budget.needs)
    free = "" if budget.available is None else f", {shown_bytes(budget.available)} are available"
    yield f"at least {shown_bytes(total)}{budget.where}{free}:"
    largest = sorted(budget.needs, key=lambda need: need.size, reverse=True)
    for need in largest[:_SHOWN_NEEDS]:
        if need.size:
            yield f"  {shown_bytes(need.size):>9} for {need.what}"


def _disk(settings: Settings, architecture: Architecture, sizes: RunSizes) -> Iterator[str]:
    """Yield the sizes of the checkpoints and of the predictions; all other files of a run are small."""
    predictions = settings.predictions.file
    if predictions is not None:
        size = file_bytes(predictions, sizes.test_samples)
        yield f"{shown_bytes(size)} for {predictions}; {_free(predictions.parent)}"
        return
    size = checkpoint_bytes(settings, architecture)
    paths = [path for path in (settings.save_model, last_checkpoint(settings)) if path is not None]
    if not paths:
        yield "no checkpoint is saved"
    for path in paths:
        kept = "twice that while it is replaced"
        yield f"{shown_bytes(size)} for {path}, {kept}; {_free(path.parent)}"


def _files(settings: Settings) -> Iterator[str]:
    for file in output_files(settings):
        if not file.path.name.endswith(".lock"):
            yield str(file.path)


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return f"{shown_bytes(shutil.disk_usage(folder).free)} are free in {folder}"


def _remaining(settings: Settings, sizes: RunSizes, trained: tuple[int, int]) -> tuple[int, int]:
    """Return how many batches are still to be trained, and how many evaluations follow."""
    if settings.inference_only:
        return 0, 1
    (epoch, iteration), in_epoch = trained, _batches(settings, sizes)
    if iteration >= in_epoch:
        epoch, iteration = epoch + 1, 0
    done, interval = epoch * in_epoch + iteration, _interval(settings, sizes)
    tested = epoch * math.ceil(in_epoch / interval) + iteration // interval if interval else 0
    batches = settings.training.epochs * in_epoch - done
    return max(0, batches), max(0, _evaluations(settings, sizes) - tested) if batches > 0 else 0


def _time(settings: Settings, sizes: RunSizes, times: StepTime, trained: tuple[int, int]) -> Iterator[str]:
    batches, tests = _remaining(settings, sizes, trained)
    test_batches = math.ceil(sizes.test_samples / settings.data.test_batch_size) if sizes.test_samples else 0
    evaluation = test_batches * times.score + times.metrics
    if batches:
        yield f"{batches:,} batches of {1e3 * times.train:.3f} ms: {_duration(batches * times.train)}"
    if tests:
        yield f"{counted(tests, 'evaluation')} of {_duration(evaluation)}: {_duration(tests * evaluation)}"
    yield f"together at least {_duration(batches * times.train + tests * evaluation)}"
    tables = "" if times.max_rows is None else f", and with at most {times.max_rows:,} rows in a table"
    yield f"measured with random rows in memory{tables}: reading the data and large tables can take longer"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
