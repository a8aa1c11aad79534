"""The model as an ONNX file with dynamic batch size."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import torch

from mlperf.data.batch import Batch
from mlperf.export.plain import PlainDLRM
from mlperf.models.dlrm import DLRM_Net
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import move_into_place

ONNX_FILE = Path("dlrm_s_pytorch.onnx")


def require_onnx() -> None:
    """Raise UsageError if a package that the export needs is missing; called before hours of training."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--save-onnx: needs {error.name} (pip install onnx onnxscript)") from None


def save_onnx(model: DLRM_Net, path: Path, *, several: bool) -> None:
    """Export `model`, check the result with onnx, and put it at `path`, whole or not at all.

    Inputs: those of PlainDLRM, `dense` and `indices`, or `dense`, `offsets`, `indices_0`, `indices_1`, ... .
    Output: `probability` [B, 1]. Weights of more than 1 GB lie beside the file, in `<name>.data`, for an ONNX
    file may not be larger than 2 GB. several: more than one id a table and sample. RunError if it fails.
    """
    import onnx

    plain = PlainDLRM(model, several=several)
    inputs = PlainDLRM.inputs(_example(model, several))
    size = torch.export.Dim("batch")
    shapes = {name: {0: torch.export.Dim(f"ids_{name}")} for name in inputs if name.startswith("indices_")}
    shapes |= {"dense": {0: size}, "offsets" if several else "indices": {1: size}}
    is_large = sum(value.nbytes for value in plain.state_dict().values()) > 1e9
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
        beside = Path(folder) / path.name
        try:
            # The exporter tells of a package that it does not find and that nothing here needs.
            logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    plain.eval(),
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
        except Exception as error:  # the exporter's own kinds are many
            reason = str(error).strip().partition("\n")[0]
            raise RunError(f"--save-onnx: {path}: the model cannot be exported: {reason}") from error
        weights = beside.with_name(f"{path.name}.data")
        if weights.exists():
            move_into_place(weights, path.with_name(weights.name))
        move_into_place(beside, path)


def _example(model: DLRM_Net, several: bool) -> Batch:
    """Return a batch to trace: sizes of 0 and 1 would be taken for constants."""
    size, each, device = 3, 2 if several else 1, model.tables.device
    tables = len(model.emb_l)
    shape = (tables * size * each,) if several else (tables, size)
    offsets = torch.arange(0, tables * size * each, each, device=device).view(tables, size) if several else None
    return Batch(
        torch.zeros(size, model.architecture.mlp_bot[0], device=device),
        torch.zeros(shape, dtype=torch.int64, device=device),
        offsets,
        torch.zeros(size, 1, device=device),
    )
