"""Time the kernels with other block sizes, and the matrix products between them: python bench/gpu/tune_kernels.py.

The sizes in use are the constants at the top of each file of mlperf/engines/gpu/kernels/.
"""

from __future__ import annotations

import bench_folder  # noqa: F401

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from gpu_workload import (
    SUMMED_UPDATES,
    Workload,
    layer_widths,
    make_batch,
    make_step,
    median_microseconds,
    parse_workload,
    workload_of,
)
from relu_input_gradient import relu_input_gradient
from triton.runtime.errors import OutOfResources

from command_line import script_parser
from mlperf.benchmarks import DLRM_DCNV2
from mlperf.engines.gpu.kernels.cross import cross_backward, cross_forward
from mlperf.engines.gpu.kernels.interaction import interact, interact_backward
from mlperf.engines.gpu.kernels.last_layer import loss_backward
from mlperf.engines.gpu.kernels.linear import relu_backward
from mlperf.engines.gpu.kernels.pooling import pool
from mlperf.engines.gpu.kernels.row_update import update_rows_once
from mlperf.engines.gpu.kernels.sgd_row_update import update_rows_by_sgd
from mlperf.engines.gpu.step import GpuStep
from mlperf.engines.gpu.upload import RawRows
from mlperf.util.errors import RunError
from mlperf.util.program import run_program
from training_shapes import PRECISIONS

# Block sizes of relu_backward: rows, columns, tiles per program instance, warps.
RELU_SIZES = ((32, 128, 8, 4), (32, 128, 2, 4), (32, 256, 4, 8), (16, 256, 8, 4), (64, 128, 4, 8))

# Sizes of the kernels of DLRM-DCNv2: samples and warps; block and warps; rows, columns, tiles and warps.
POOLING_SIZES = ((16, 4), (16, 8), (8, 2), (8, 4), (4, 1), (32, 8))
CROSS_FORWARD_SIZES = ((1024, 4), (2048, 4), (2048, 8), (4096, 8))
CROSS_BACKWARD_SIZES = ((16, 128, 8, 4), (16, 128, 4, 4), (8, 256, 8, 4), (16, 256, 8, 8), (32, 128, 4, 8))

# Chunks per program instance that updates rows of several chunks; tiles and registers of the kernel of the loss.
SHARED_GROUPS = (8, 4, 2, 1)
LOSS_SIZES = ((8, None), (8, 128), (11, None), (16, None), (4, None))

# Tile sizes of relu_input_gradient: rows, columns, depth, warps, stages.
RELU_PRODUCT_SIZES = ((128, 256, 64, 8, 3), (128, 256, 64, 8, 4), (256, 128, 64, 8, 3), (128, 128, 64, 8, 4))


def main() -> None:
    """Print a line for each size: the interaction in each precision, the rest in bf16."""
    workload, args = parse_workload(script_parser(__file__, __doc__))
    for precision in PRECISIONS:
        step = make_step(workload, precision)
        print(f"{precision}:")
        tune_interaction(workload, step)
        if precision == "bf16":
            tune_relu(workload, width=max(workload.network.top_mlp))
            tune_loss(workload, step)
            time_products(workload, step)
            compare_relu_input_gradient(workload, step)
    time_summed_updates(workload)
    tune_dcnv2(workload_of(DLRM_DCNV2, reduced=args.reduced))


def report(workload: Workload, name: str, function: Callable[[], object]) -> None:
    """Print the time of `function`."""
    print(f"  {name}: {median_microseconds(function, workload.device):.0f} us", flush=True)


def tune_interaction(workload: Workload, step: GpuStep) -> None:
    """Time the interaction, its gradient and the table update on one batch."""
    activations = step.forward(RawRows(make_batch(workload, 1).rows.to(workload.device)))
    tables, rows, bottom = step.tables.weight, activations.ids, activations.bottom[-1]
    gradient = torch.randn_like(activations.top[0])
    forward = partial(
        interact,
        tables=tables,
        embedding_rows=rows,
        bottom=bottom,
        width=step.interacted_width,
        self_interaction=False,
        allow_tf32=step.allow_tf32,
    )
    backward = partial(
        interact_backward,
        tables=tables,
        embedding_rows=rows,
        bottom=bottom,
        gradient=gradient,
        self_interaction=False,
        allow_tf32=step.allow_tf32,
    )
    for warps in (1, 2, 4, 8):
        report(workload, f"interact, {warps} warps", partial(forward, warps=warps))
    for warps in (1, 2, 4, 8):
        report(workload, f"interact_backward, {warps} warps", partial(backward, warps=warps))
    report(workload, "the sort in update_rows", lambda: rows.flatten().sort())
    _, d_embeddings = backward()
    rate = torch.zeros((), device=workload.device)
    update = partial(update_rows_by_sgd, tables=tables, embedding_rows=rows, d_embeddings=d_embeddings, rate=rate)
    for chunk in (16, 32, 64):
        for warps in (1, 2, 4, 8):
            name = f"update_rows with its sort, chunks of {chunk}, {warps} warps"
            report(workload, name, partial(update, chunk=chunk, warps=warps))


def time_summed_updates(workload: Workload) -> None:
    """Time the updates of the tables that first sum the gradients of a row, and the lookup in such tables."""
    print("bf16, rows updated by the sum of their gradients:")
    for optimizer, table_precision in SUMMED_UPDATES:
        step = make_step(workload, "bf16", optimizer=optimizer, table_precision=table_precision)
        activations = step.forward(RawRows(make_batch(workload, 1).rows.to(workload.device)))
        bottom = activations.bottom[-1]
        _, gradients = step.interaction_gradients(activations, torch.randn_like(activations.top[0]))
        name = f"{optimizer}, tables in {table_precision}"
        update = partial(step.update_rows, activations, gradients, step.rate)
        report(workload, f"update with its sort, {name}", update)
        lookup = partial(step.look_up_and_interact, activations.ids, bottom)
        report(workload, f"lookup and interaction, {name}", lookup)


def tune_dcnv2(workload: Workload) -> None:
    """Time the pooling, the element-wise parts of a cross layer and the update of the tables of DLRM-DCNv2."""
    print("dlrm_dcnv2, bf16, tables in bf16:")
    step = make_step(workload, "bf16", table_precision="bf16")
    batch = make_batch(workload, 1)
    assert batch.ids is not None
    assert step.bags is not None
    activations = step.forward(RawRows(batch.rows.to(workload.device), batch.ids.to(workload.device)))
    rows, bottom = activations.ids, activations.bottom[-1]
    look_up = partial(pool, tables=step.tables.weight, embedding_rows=rows, bags=step.bags, bottom=bottom)
    for samples, warps in POOLING_SIZES:
        name = f"pooling, {samples} samples, {warps} warps"
        report(workload, name, partial(look_up, samples_per_program=samples, warps=warps))
    x0 = activations.cross[0].x
    up, gradient, d_x0 = (torch.randn_like(x0) for _ in range(3))
    for block, warps in CROSS_FORWARD_SIZES:
        name = f"cross_forward, blocks of {block}, {warps} warps"
        report(workload, name, partial(cross_forward, x0=x0, up=up, x=gradient, block=block, warps=warps))
    d_bias = torch.zeros(x0.shape[1], device=workload.device)
    backward = partial(cross_backward, gradient=gradient, x0=x0, up=up, d_x0=d_x0, d_bias=d_bias)
    for block_rows, columns, tiles, warps in CROSS_BACKWARD_SIZES:
        name = f"cross_backward, {block_rows} x {columns} x {tiles} tiles, {warps} warps"
        report(workload, name, partial(backward, rows=block_rows, columns=columns, tiles=tiles, warps=warps))
    report(workload, "the sort of the rows", rows.sort)
    update = partial(
        update_rows_once,
        tables=step.tables.weight,
        sums=step.row_sums,
        embedding_rows=rows,
        d_embeddings=d_x0,
        rate=step.rate,
        counter=step.counter,
        epsilon=step.epsilon,
        bags=step.bags,
    )
    for group in SHARED_GROUPS:
        report(workload, f"update with its sort, groups of {group} chunks", partial(update, group=group))


def tune_relu(workload: Workload, width: int) -> None:
    """Time the gradient of a ReLU after a layer with `width` outputs."""
    shape = (workload.batch_size, width)
    gradient, output = (torch.randn(*shape, device=workload.device).bfloat16() for _ in range(2))
    d_bias = torch.zeros(width, device=workload.device)
    backward = partial(relu_backward, gradient=gradient, output=output, d_bias=d_bias)
    for rows, columns, tiles, warps in RELU_SIZES:
        name = f"relu_backward of {width} outputs, {rows} x {columns} x {tiles} tiles, {warps} warps"
        report(workload, name, partial(backward, rows=rows, columns=columns, tiles=tiles, warps=warps))


def tune_loss(workload: Workload, step: GpuStep) -> None:
    """Time the loss and its gradient, with the gradient of the ReLU below."""
    samples, width = workload.batch_size, workload.network.top_mlp[-2]
    hidden = torch.randn(samples, width, device=workload.device).bfloat16().relu_()
    labels = (torch.rand(samples, device=workload.device) < 0.25).float()
    d_weight, d_hidden_bias = torch.zeros(2, width, device=workload.device)
    backward = partial(
        loss_backward,
        hidden=hidden,
        weight=step.last_weight,
        bias=step.last_bias,
        labels=labels,
        d_weight=d_weight,
        d_bias=torch.zeros(1, device=workload.device),
        d_hidden_bias=d_hidden_bias,
        sums=torch.zeros(2, dtype=torch.float64, device=workload.device),
        loss=step.loss.kind,
        class_weights=step.loss.weights,
        threshold=step.threshold,
    )
    for tiles, registers in LOSS_SIZES:
        name = f"loss_backward, {tiles} tiles, {registers or 'any number of'} registers"
        report(workload, name, partial(backward, tiles=tiles, registers=registers))


def compare_relu_input_gradient(workload: Workload, step: GpuStep) -> None:
    """Check the candidate kernel for each layer above a ReLU, and time it beside what the engine uses.

    RunError if the results differ by more than rounding.
    """
    samples = workload.batch_size
    for (_, width), (inputs, outputs) in pairwise(layer_widths(workload, step)):
        if inputs != width:  # the interaction is in between
            continue
        shapes = ((samples, outputs), (outputs, inputs), (samples, inputs))
        gradient, weight, output = (torch.randn(*shape, device=workload.device).bfloat16() for shape in shapes)
        output.relu_()
        sums = torch.zeros(2, inputs, device=workload.device)
        separate = partial(_product_and_relu, gradient, weight, output, sums[0])
        candidate = partial(relu_input_gradient, gradient=gradient, weight=weight, inputs=output, d_bias=sums[1])
        expected, found = separate(), candidate()
        scale = float(expected.abs().max())
        if not torch.allclose(found.float(), expected.float(), rtol=0.02, atol=0.01 * scale):
            raise RunError(f"relu_input_gradient of {inputs} to {outputs}: differs from the product and its ReLU")
        if not torch.allclose(sums[1], sums[0], rtol=0.02, atol=0.01 * scale * samples**0.5):
            raise RunError(f"relu_input_gradient of {inputs} to {outputs}: differs in the gradient of the bias")
        name = f"gradient of the input and ReLU, {inputs} to {outputs}"
        report(workload, f"{name}, separate", separate)
        for sizes in RELU_PRODUCT_SIZES:
            rows, columns, depth, warps, stages = sizes
            tiles = {"rows": rows, "columns": columns, "depth": depth, "warps": warps, "stages": stages}
            shown = f"{rows} x {columns} x {depth}, {warps} warps, {stages} stages"
            try:
                report(workload, f"{name}, one kernel, {shown}", partial(candidate, **tiles))
            except OutOfResources as error:
                print(f"  {name}, one kernel, {shown}: not possible: {error}", flush=True)


def _product_and_relu(
    gradient: torch.Tensor, weight: torch.Tensor, output: torch.Tensor, d_bias: torch.Tensor
) -> torch.Tensor:
    result = gradient @ weight
    relu_backward(gradient=result, output=output, d_bias=d_bias)
    return result


def time_products(workload: Workload, step: GpuStep) -> None:
    """Time the matrix products of each layer in bfloat16."""
    samples = workload.batch_size
    for inputs, outputs in layer_widths(workload, step):
        shapes = ((samples, inputs), (outputs, inputs), (outputs,), (samples, outputs))
        x, weight, bias, gradient = (torch.randn(*shape, device=workload.device).bfloat16() for shape in shapes)
        products: dict[str, Callable[[], object]] = {
            "forward": partial(torch._addmm_activation, bias, x, weight.t()),
            "gradient of the input": partial(torch.matmul, gradient, weight),
            "gradient of the weight": partial(torch.matmul, gradient.t(), x),
        }
        for name, product in products.items():
            microseconds = median_microseconds(product, workload.device)
            tera = 2e-6 * samples * inputs * outputs / microseconds
            print(f"  {inputs} to {outputs}, {name}: {microseconds:.0f} us, {tera:.0f} TFLOP/s", flush=True)


if __name__ == "__main__":
    sys.exit(run_program("tune_kernels.py", main))
