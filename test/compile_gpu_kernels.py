"""Compile the GPU step's kernels for several generations of GPUs, without a GPU; run by `test_gpu_kernels.py`.

Every launch of a kernel compiles it instead, exactly as the launch would. Prints as JSON the names of the kernels
compiled, and of those that a batch of another size compiled again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mlperf.data.batch import RawBatch, RowSource
from mlperf.data.schema import CRITEO, RowSchema
from mlperf.engines.gpu.step import GpuStep
from mlperf.models.loss import Loss
from mlperf.models.make import make_model
from mlperf.optim.optimizer import make_optimizer
from mlperf.settings.model import Architecture

COMPUTE_CAPABILITIES = (80, 90, 100)
# Widths that differ only in size compile alike: one layer of each kind is enough.
ARCHITECTURE = Architecture((100,) * 26, 128, (13, 128), (256, 1))
# Precision, optimizer, precision of the tables, and ids per table of DLRM-DCNv2.
VARIANTS: tuple[tuple[str, str, str, tuple[int, ...] | None], ...] = (
    ("fp32", "sgd", "fp32", None),
    ("tf32", "sgd", "fp32", None),
    ("bf16", "sgd", "fp32", None),
    ("bf16", "sgd", "bf16", None),
    ("fp32", "adagrad", "fp32", None),
    ("bf16", "rwsadagrad", "fp16", None),
    ("bf16", "adagrad", "bf16", (3, *[1] * 25)),
    ("fp32", "sgd", "fp32", (3, *[1] * 25)),
)


class CompilerDriver:
    """A driver for a GPU of the chosen compute capability that is not there."""

    capability = COMPUTE_CAPABILITIES[0]

    def get_current_device(self) -> int:
        """Return the number under which Triton keeps the compiled kernels."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """Return a stream, which is never used."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """Return what to compile for."""
        return GPUTarget("cuda", self.capability, 32)


def main() -> None:
    """Compile the kernels of all variants."""
    gpu = CompilerDriver()
    driver.set_active(gpu)
    run = JITFunction.run
    binaries: set[tuple[str, int]] = set()  # a kernel's name and the identity of its binary, which Triton keeps

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        for gpu.capability in COMPUTE_CAPABILITIES:
            binary = run(kernel, *args, grid=grid, warmup=True, **options)
            assert binary.asm["cubin"]
            binaries.add((kernel.fn.__name__, id(binary)))

    JITFunction.run = compile_only
    compiled_again: set[str] = set()
    for precision, optimizer, table_precision, ids in VARIANTS:
        architecture = replace(
            ARCHITECTURE, embedding_precision=table_precision, interaction_op="dot" if ids is None else "dcn"
        )
        model = make_model(architecture, torch.device("cpu"))
        trained, loss = make_optimizer(optimizer, model), Loss("bce" if ids is None else "bce_logits")
        # One variant with dense features that are transformed, and with several ids in the rows, is enough.
        schema = CRITEO if ids is None or precision != "fp32" else RowSchema(13, ids)
        step = GpuStep(
            *(model, loss, trained, precision, 40_000_000, ids), schema=schema, has_transforms=schema != CRITEO
        )
        step.warm_up(128)
        before = set(binaries)
        for size in (1, 77):
            rows = torch.zeros(size, schema.columns, dtype=torch.int32)
            added = None if ids is None else torch.zeros(size * sum(ids), dtype=torch.int32)
            batch = RawBatch(
                rows, 0, RowSource(Path("rows.bin"), ARCHITECTURE.rows_per_table, schema=schema), added
            )
            step.train(batch, 0.1)
            step.score(batch)
        compiled_again |= {name for name, _ in binaries - before}
    names = {name for name, _ in binaries}
    print(json.dumps({"compiled": sorted(names), "compiled again": sorted(compiled_again)}))


if __name__ == "__main__":
    main()
