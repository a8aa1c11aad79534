"""Convert a checkpoint in a file to a sharded one in a folder, or the other way, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mlperf.training.checkpoint_file import CheckpointFile, open_checkpoint, write_checkpoint
from mlperf.training.sharded_planners import MAX_SHARD_BYTES
from mlperf.training.sharded_writer import write_sharded
from mlperf.training.stored_tensor import StoredTensor
from mlperf.util.errors import RunError

# Called with a tensor of the checkpoint when it has been read and verified.
Report = Callable[[torch.Tensor], None]


def convert(
    source: Path,
    result: Path,
    report: Callable[[list[torch.Tensor]], Report] = lambda tensors: lambda tensor: None,
    shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the checkpoint `source` to `result`, a folder if `source` is a file and a file if it is a folder.

    All entries and all elements stay the same. `result` is written beside and renamed when it is complete. Needs
    memory for the largest tensor (for a file in PyTorch's older format, for all).

    report: called with all tensors before they are read; returns what is called with each of them. shard_bytes: as
    for `write_sharded`.

    RunError, in one line, if `source` is damaged or not a checkpoint, or if `result` cannot be written.
    """
    is_file = not source.is_dir()
    with open_checkpoint(source) as file:
        tensors: list[torch.Tensor] = []
        _mapped(file.contents, tensors.append)
        done = report(tensors)
        contents = _mapped(file.contents, lambda tensor: _read_later(file, tensor, done))
        if not is_file:
            write_checkpoint(result, contents)
            return
        try:
            write_sharded(result, contents, shard_bytes=shard_bytes)
        except TypeError as error:
            raise RunError(f"{source}: cannot be converted: {error}") from None


def _read_later(file: CheckpointFile, tensor: torch.Tensor, report: Report) -> torch.Tensor:
    """Return a tensor that is read from `file` when it is written. Numbers are read at once."""
    if tensor.dim() == 0:
        report(tensor)
        return tensor.clone()

    def fill(target: torch.Tensor) -> None:
        file.fill([(target, tensor)])
        report(tensor)

    return StoredTensor("", tensor.shape, tensor.dtype, fill)


def _mapped(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """Return `value` with the results of `function` in place of its tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _mapped(each, function) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(each, function) for each in value)
    return value
