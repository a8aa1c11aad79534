"""Undamaged files to attack: prepared data, and checkpoints of several models and formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from program import GOLDEN, golden_flags
from small_runs import SHAPE, TRAIN

from hostile.pool import Server

# The models of our own checkpoints: all optimizers, both benchmarks, all kinds of tables and of learned weights.
MODELS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "adagrad": ("--optimizer=adagrad", "--weighted-pooling=learned"),
    "rwsadagrad": ("--optimizer=rwsadagrad", "--mlperf-bin-shuffle"),
    "dcn": ("--arch-interaction-op=dcn", "--dcn-low-rank-dim=3", "--optimizer=adagrad"),
    "qr": ("--qr-flag", "--qr-threshold=20", "--qr-collisions=4", "--optimizer=adagrad"),
}


@dataclass(frozen=True)
class Checkpoint:
    """An undamaged checkpoint. flags: of the run that reads it. other: another checkpoint of the same run.

    has_digest: whether it was written by this program, with a digest of everything in it.
    is_zip: whether it is an archive with checksums; otherwise it is in PyTorch's older format without any.
    """

    name: str
    path: Path
    flags: tuple[str, ...]
    other: Path
    has_digest: bool = False
    is_zip: bool = True

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self.path.read_bytes()


def prepared_data(folder: Path, server: Server) -> Path:
    """Prepare the golden Terabyte data in `folder`, not shuffled, and return the prefix of its files."""
    prefix = folder / "processed"
    flags = (f"--raw-data-file={GOLDEN / 'terabyte' / 'day'}", f"--processed-data-file={prefix}")
    done = server.program(
        *(folder, *flags, "--data-set=terabyte", "--max-ind-range=40000000", "--data-randomize=none"),
        program="tools/prepare_criteo.py",
    )
    assert done.status == 0, done.stderr
    return prefix


def train_flags(data: Path, *flags: str) -> tuple[str, ...]:
    """Return the flags of a training run of a fraction of a second."""
    return (*SHAPE, *TRAIN, f"--processed-data-file={data}", *flags)


def own_checkpoint(name: str, folder: Path, data: Path, server: Server) -> Checkpoint:
    """Train one of MODELS and return its last checkpoint, and its first as the other one."""
    flags = train_flags(data, *MODELS[name])
    first, last = folder / f"own-{name}-first.pt", folder / f"own-{name}.pt"
    for path, more in ((first, ("--mlperf-auc-threshold=0.01",)), (last, ())):
        done = server.program(folder, *flags, *more, f"--save-model={path}")
        assert done.status == 0, done.stderr
    return Checkpoint(f"own {name}", last, flags, first, has_digest=True)


def golden_checkpoint(data: Path) -> Checkpoint:
    """Return the checkpoint that the original implementation wrote."""
    path = GOLDEN / "terabyte" / "sgd.pt"
    return Checkpoint("original sgd", path, tuple(golden_flags("sgd", data)), path)


def legacy(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return a checkpoint in PyTorch's older format."""
    saved = []
    for path in (checkpoint.path, checkpoint.other):
        target = folder / f"legacy-{path.name}"
        torch.save(torch.load(path, weights_only=False), target, _use_new_zipfile_serialization=False)
        saved.append(target)
    return Checkpoint(f"legacy {checkpoint.name}", saved[0], checkpoint.flags, saved[1], is_zip=False)
