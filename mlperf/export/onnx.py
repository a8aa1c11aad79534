"""Export the model to an ONNX file with dynamic batch size."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from mlperf.data.batch import Batch
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.reference import ReferenceDLRM
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import move_into_place
from mlperf.util.temporary import new_temporary_folder

ONNX_FILE = Path("dlrm_s_pytorch.onnx")
WEIGHTS_FILE = ONNX_FILE.with_name(f"{ONNX_FILE.name}.data")  # of a large model


def require_onnx() -> None:
    """Raise UsageError if a required package is missing. Called before the training."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--save-onnx: requires the package {error.name} (pip install onnx onnxscript)") from None


def save_onnx(model: DLRM_Net, path: Path, *, multi_hot: bool) -> None:
    """Export `model`, check the result with onnx, and move it to `path` atomically. RunError if it fails.

    The inputs are those of ReferenceDLRM, `dense` and `indices`, or `dense`, `offsets`, `indices_0`, `indices_1`,
    ...; the output is `probability` [B, 1]. Weights of more than 1 GB are stored beside the file, in
    `<name>.data`, since an ONNX file is limited to 2 GB. The weights are not copied, except to host memory from a
    GPU, one parameter at a time.

    multi_hot: whether there may be several ids per table and sample.
    """
    import onnx

    traced = ReferenceDLRM.of(model)
    inputs = traced.inputs(_example(model, multi_hot))
    size = torch.export.Dim("batch")
    shapes = {name: {0: torch.export.Dim(f"ids_{name}")} for name in inputs if name.startswith("indices_")}
    shapes |= {"dense": {0: size}, "offsets" if multi_hot else "indices": {1: size}}
    is_large = sum(value.nbytes for value in traced.state_dict().values()) > 1e9
    with new_temporary_folder(path) as folder:
        beside = folder / path.name
        try:
            # The exporter warns about a missing package that is not needed here.
            logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    traced.eval(),
                    tuple(inputs.values()),
                    str(beside),
                    input_names=list(inputs),
                    output_names=["probability"],
                    dynamic_shapes=(shapes["dense"], tuple(shapes[name] for name in inputs if name != "dense")),
                    dynamo=True,
                    external_data=is_large,
                    verbose=False,
                )
            onnx.checker.check_model(str(beside), full_check=not is_large)
        except Exception as error:  # the exporter raises exceptions of many types
            reason = str(error).strip().partition("\n")[0]
            raise RunError(f"--save-onnx: {path}: the model cannot be exported: {reason}") from error
        weights = beside.with_name(f"{path.name}.data")
        if weights.exists():
            move_into_place(weights, path.with_name(weights.name))
        move_into_place(beside, path)


def _example(model: DLRM_Net, multi_hot: bool) -> Batch:
    """Return a batch to trace. The exporter specializes sizes 0 and 1."""
    size, each, device = 3, 2 if multi_hot else 1, model.tables.device
    tables = len(model.emb_l)
    shape = (tables * size * each,) if multi_hot else (tables, size)
    offsets = torch.arange(0, tables * size * each, each, device=device).view(tables, size) if multi_hot else None
    return Batch(
        torch.zeros(size, model.architecture.mlp_bot[0], device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
        offsets,
        torch.zeros(size, 1, device=device),
    )
