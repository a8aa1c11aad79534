"""Prepared data with columns of its own (--data-set=columns), written by hand, and training steps on it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from gpu_models import DEVICE
from own_columns import COLUMNS
from program import run_program

from mlperf.data.binary import BinaryFile
from mlperf.data.columns.description import (
    CategoricalColumn,
    ColumnsDescription,
    DenseColumn,
    LabelColumn,
    Transform,
)
from mlperf.data.criteo.days import SPLITS
from mlperf.data.prepared.dataset import PreparedData
from mlperf.data.watched_file import FileStatus
from mlperf.engines.choose import make_step
from mlperf.engines.protocol import TrainingStep
from mlperf.evaluation.evaluate import evaluate
from mlperf.models.dlrm import DLRM_Net
from mlperf.optim.optimizer import make_optimizer
from mlperf.runner.data import open_split
from mlperf.runner.memory import RunSizes
from mlperf.runner.model import architecture_of, build_model, initialize_model
from mlperf.settings.from_flags import parse
from mlperf.settings.settings import Settings

ROWS = {"train": 700, "test": 300, "val": 50}
# An integer, a standardized decimal, and a decimal as it is.
DENSE = (
    DenseColumn("age", Transform.LOG1P),
    DenseColumn("price", Transform.STANDARDIZE, is_integer=False),
    DenseColumn("score", Transform.NONE, is_integer=False),
)
INTEGERS = tuple(DenseColumn(f"count {number}") for number in range(5))
# Numbers of ids, and of distinct ids besides the empty one.
SINGLE = ((1, 40), (1, 3), (1, 900))
SEVERAL = ((2, 40), (1, 3), (5, 900))


def description(dense: Sequence[DenseColumn], ids: Sequence[tuple[int, int]]) -> ColumnsDescription:
    columns = (CategoricalColumn(f"id {number}", ids=count) for number, (count, _) in enumerate(ids))
    return ColumnsDescription(LabelColumn("clicked"), tuple(dense), tuple(columns))


def write_own_data(
    folder: Path,
    dense: Sequence[DenseColumn] = DENSE,
    ids: Sequence[tuple[int, int]] = SINGLE,
    rows: Mapping[str, int] = ROWS,
) -> PreparedData:
    """Write the three binary files to `folder`, and return the data. Its labels depend on the first table.

    Some dense values are missing, and some ids are empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = description(dense, ids)
    stream = np.random.default_rng(5)
    for split, count in rows.items():
        rows_of(columns, ids, count, stream).tofile(folder / f"x_{split}.bin")
    paths = {split: folder / f"x_{split}.bin" for split in SPLITS}
    standardized = [column.transform is Transform.STANDARDIZE for column in dense]
    return PreparedData(
        *(paths["train"], paths["test"], paths["val"]),
        counts=tuple(count for _, count in ids),
        train_rows=rows["train"],
        test_rows=rows["test"],
        val_rows=rows["val"],
        data_set="columns",
        max_ind_range=-1,
        statuses={split: FileStatus.of(path) for split, path in paths.items()},
        columns=columns,
        numbering="0123456789abcdef",
        means=tuple(3.5 * each for each in standardized),
        deviations=tuple(2.0 if each else 1.0 for each in standardized),
    )


def rows_of(
    columns: ColumnsDescription, ids: Sequence[tuple[int, int]], rows: int, stream: np.random.Generator
) -> np.ndarray:
    """Return random rows as the binary file has them, int32 [rows, columns]."""
    schema = columns.schema
    stored = np.zeros((rows, schema.columns), "<i4")
    values = stream.normal(3.5, 2.0, (rows, schema.dense_features)).astype("<f4")
    for number, column in enumerate(columns.dense):
        if column.is_integer:
            values[:, number] = stream.integers(0, 1000, rows)
    if columns.stores_floats:
        values[stream.random(values.shape) < 0.1] = np.nan
        stored[:, schema.dense_columns] = values.view("<i4")
    else:
        stored[:, schema.dense_columns] = values
    for (count, distinct), first in zip(ids, schema.first_ids, strict=True):
        stored[:, first : first + count] = stream.integers(0, 1 + distinct, (rows, count))
    stored[:, 0] = stream.random(rows) < 0.1 + 0.8 * (stored[:, schema.first_id] % 2)
    return stored


def flags_for(prepared: PreparedData, *flags: str) -> list[str]:
    """Return the flags of a run on `prepared`, whose model trains in a second."""
    return [
        *("--data-generation=dataset", "--data-set=columns", f"--processed-data-file={prefix_of(prepared)}"),
        *(f"--arch-mlp-bot={len(prepared.columns.dense)}-12-8", "--arch-sparse-feature-size=8"),
        *("--arch-mlp-top=16-1", "--mini-batch-size=64", "--test-mini-batch-size=100", "--loss-function=bce"),
        *flags,
    ]


def prefix_of(prepared: PreparedData) -> Path:
    return prepared.train.with_name("x")


@dataclass(frozen=True)
class Trained:
    """What a few steps gave: loss of each, AUC on the test split afterwards, and the model."""

    losses: list[float]
    auc: float
    model: DLRM_Net
    step: TrainingStep


def train_steps(prepared: PreparedData, *flags: str, steps: int = 6, rate: float = 0.05) -> Trained:
    """Train on the first batches with the engine of `flags`, from the weights of the seed."""
    settings = parse(flags_for(prepared, *flags))
    step, model = start(settings, prepared)
    losses = []
    train, test = (open_here(settings, prepared, name) for name in ("train", "test"))
    for batch in islice(step.training_batches(train, 0), steps):
        step.train(batch, rate)
        losses.append(step.sums.totals()[0] / batch.size)
        step.sums.clear()
    auc = evaluate(step, test, all_metrics=True).auc
    return Trained(losses, auc, model, step)


def open_here(settings: Settings, prepared: PreparedData, split: str) -> BinaryFile:
    """Return the batches of a split, pinned only if there is a GPU."""
    batches = open_split(settings, prepared, split)
    assert isinstance(batches, BinaryFile)
    return replace(batches, pin_memory=DEVICE.type == "cuda")


def start(settings: Settings, prepared: PreparedData) -> tuple[TrainingStep, DLRM_Net]:
    """Return the step of a run, after its warm-up, and the model with the weights of the seed."""
    sizes = RunSizes.of(settings, prepared)
    device = DEVICE if settings.use_gpu else torch.device("cpu")
    model = build_model(settings, architecture_of(settings, prepared), device, sizes)
    initialize_model(settings, model, np.random.RandomState(settings.seed))
    training = settings.training
    optimizer = make_optimizer(training.optimizer, model, settings.seed, training.adagrad_epsilon)
    step = make_step(model, settings, optimizer)
    step.warm_up(sizes.train_batch(settings))
    return step, model


LOG_COLUMNS = COLUMNS.replace("ids = 2", "ids = 3") + "[split]\ntest_share = 0.3\nval_share = 0.1\n"


def write_log(path: Path, rows: int = 600, seed: int = 3) -> Path:
    """Write a CSV file with a header, which LOG_COLUMNS describes. Users with an odd number click more often."""
    stream = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["user", "clicked", "price", "age", "site", "tags"])
        for _ in range(rows):
            user = int(stream.integers(0, 50))
            tags = "|".join(stream.choice(["sport", "news", "cook", ""], stream.integers(0, 5)))
            price = "" if stream.random() < 0.1 else f"{stream.normal(20, 5):.2f}"
            label, age = int(stream.random() < 0.1 + 0.8 * (user % 2)), int(stream.integers(0, 90))
            log.writerow([user, label, price, age, f'site "{stream.integers(0, 5)}", x', tags])
    return path


def prepared_log(folder: Path, *flags: str, name: str = "x", columns: str = LOG_COLUMNS) -> Path:
    """Prepare `folder`/log.csv, written if it is missing, and return the prefix of the prepared files."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (log := folder / "log.csv").exists():
        write_log(log)
    description = folder / f"{name}.toml"
    description.write_text(columns)
    given = ("--data-set=columns", f"--columns={description}", f"--raw-data-file={log}", *flags)
    run = run_program(
        *given, f"--processed-data-file={folder / name}", cwd=folder, program="tools/prepare_criteo.py"
    )
    assert run.status == 0, run.stderr
    return folder / name


def flags_of_log(prefix: Path, *flags: str) -> list[str]:
    """Return the flags of a run on a prepared log, whose model trains in a second."""
    return [
        *("--data-generation=dataset", "--data-set=columns", f"--processed-data-file={prefix}", "--print-freq=5"),
        *("--arch-mlp-bot=2-12-8", "--arch-sparse-feature-size=8", "--arch-mlp-top=16-1", "--mini-batch-size=32"),
        *("--loss-function=bce", "--optimizer=adagrad", "--learning-rate=0.03", "--test-freq=5", *flags),
    ]
