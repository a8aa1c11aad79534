"""Initial weights from a NumPy archive (--load-weights)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from mlperf.data.npz_members import ArrayMember, OpenArchive, opened_archive
from mlperf.models.dlrm import DLRM_Net
from mlperf.training.weight_names import array_name
from mlperf.training.zip_headers import LOCAL, LOCAL_SIGNATURE
from mlperf.util.divided_tensor import DividedTensor
from mlperf.util.errors import RunError
from mlperf.util.files import open_regular
from mlperf.util.printable import shown_name
from mlperf.util.tensors import BLOCK_BYTES, pieces

_NAMES = (
    "emb.K.weight, bottom.N.weight, bottom.N.bias, cross.L.V, cross.L.W, cross.L.bias, top.N.weight, top.N.bias"
)
_MAX_NAME = 1 << 16  # bytes, of zip archives
# Flags that determine the shapes, by the beginning of the name of an array.
_FLAGS = {
    "emb": "--arch-sparse-feature-size, --max-ind-range, --arch-embedding-size, or other data",
    "bottom": "--arch-mlp-bot",
    "cross": "--dcn-num-layers, --dcn-low-rank-dim",
    "top": "--arch-mlp-top or --arch-interaction-op",
}


def is_archive_of_arrays(path: Path) -> bool:
    """Return whether a file is a NumPy archive, by its name or its first array. OSError if it cannot be read."""
    if path.suffix == ".npz":
        return True
    with open_regular(path) as file:
        beginning = file.read(LOCAL.size + _MAX_NAME)
    if len(beginning) < LOCAL.size or not beginning.startswith(LOCAL_SIGNATURE):
        return False
    *_, name_size, _ = LOCAL.unpack_from(beginning)
    return beginning[LOCAL.size : LOCAL.size + name_size].endswith(b".npy")


def load_initial_weights(path: Path, model: DLRM_Net) -> None:
    """Fill `model` with the arrays of `path`, named as `array_name` says, block by block.

    Tables of another --embedding-precision get the nearest values.

    RunError, in one line, if the model has weights for which there are no names (pooling weights, compressed
    tables), if the file is damaged, if its arrays are not those of the model (names, shapes,
    float32), or if a value is not finite. The model is unchanged then, unless only values are wrong.
    """
    weights = {array_name(name): value for name, value in model.state_dict().items()}
    expected = {name: value for name, value in weights.items() if name is not None}
    unnamed = [name for name in model.state_dict() if array_name(name) is None]
    if unnamed:
        raise RunError(
            f"{path}: an archive of arrays has no weights for --weighted-pooling, --qr-flag and --md-flag, such "
            f"as {unnamed[0]}; load them from a checkpoint"
        )
    with opened_archive(path, "cannot read the weights") as archive:
        problem = _names_mismatch(archive.names(), expected)
        if problem is not None:
            raise RunError(f"{path}: {problem}")
        for name, weight in expected.items():
            _check(archive.array(name), name, weight, path)
        for name, weight in expected.items():
            _fill(archive, name, weight, path)


def _names_mismatch(found: list[str], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Return the first difference between names, None if there is none."""
    present = set(found)
    missing = [name for name in expected if name not in present]
    surplus = [name for name in found if name not in expected]
    for text, names in (("lacks {}", missing), ("contains {}, which this model does not have", surplus)):
        if names:
            part = names[0].split(".")[0]
            cause = _FLAGS.get(part, f"allowed are {_NAMES}")
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"{text.format(', '.join(map(shown_name, names[:3])) + more)}: {cause}"
    return None


def _check(array: ArrayMember, name: str, weight: torch.Tensor, path: Path) -> None:
    """Raise RunError if an array is not float32 or has another shape than `weight`."""
    if array.shape != tuple(weight.shape):
        cause = _FLAGS[name.split(".", maxsplit=1)[0]]
        raise RunError(
            f"{path}: {name} is {list(array.shape)} in the file and {list(weight.shape)} in this model: {cause}"
        )
    if array.dtype != np.dtype("<f4"):
        raise RunError(f"{path}: {name} is {array.dtype.str}, must be float32 (<f4)")


def _fill(archive: OpenArchive, name: str, weight: torch.Tensor, path: Path) -> None:
    array = archive.array(name)
    if isinstance(weight, DividedTensor):
        _fill_parts(array, name, weight, path)
        return
    stored = weight.t() if array.by_column else weight
    done = 0
    for piece in pieces(stored, BLOCK_BYTES // 4):
        values = torch.from_numpy(array.read_values(piece.numel()).copy()).view(piece.shape)
        piece.copy_(values)
        _check_values(values, piece, name, path)
        done += piece.numel()
    array.finish()


def _fill_parts(array: ArrayMember, name: str, weight: DividedTensor, path: Path) -> None:
    """Read all of a table, by rows or by columns, and keep what this process has of it."""
    length, width = reversed(weight.shape) if array.by_column else weight.shape
    step = max(1, BLOCK_BYTES // 4 // width)
    for first in range(0, length, step):
        count = min(step, length - first)
        values = torch.from_numpy(array.read_values(count * width).copy()).view(count, width)
        _check_values(values, values, name, path)
        for part in weight.parts:
            (part.t() if array.by_column else part).copy_rows(values, first)
    array.finish()


def _check_values(values: torch.Tensor, stored: torch.Tensor, name: str, path: Path) -> None:
    """Raise RunError if a value of the file is not finite, or was not when it was converted."""
    if values.numel() == 0 or all(math.isfinite(limit) for limit in torch.aminmax(stored)):
        return
    if all(math.isfinite(limit) for limit in torch.aminmax(values)):
        raise RunError(
            f"{path}: {name} has values beyond {torch.finfo(stored.dtype).max:,.0f}, the largest of "
            "--embedding-precision=fp16; use bf16 or fp32"
        )
    raise RunError(f"{path}: {name} has NaN or infinite values")
