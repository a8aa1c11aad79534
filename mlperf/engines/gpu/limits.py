"""Model sizes that the Triton kernels support."""

from __future__ import annotations

from mlperf.engines.gpu.kernels.interaction import MAX_DIMENSION, MAX_FEATURES
from mlperf.engines.gpu.kernels.last_layer import MAX_INPUTS
from mlperf.models.dlrm import DLRM_Net

# With a cross network, the update compares the embeddings of a chunk with the first ones of all tables, in a tile
# of 16 x 1024 values.
MAX_POOLED_TABLES = 1024
# Row numbers of all tables together are int32.
MAX_ROWS = 2**31 - 1


def unsupported_size(model: DLRM_Net) -> str | None:
    """Return which size of `model` exceeds a limit of the kernels, None if all fit."""
    architecture = model.architecture
    features, dimension = len(architecture.rows_per_table) + 1, architecture.dimension
    rows, last_inputs = sum(architecture.rows_per_table), model.top_widths[-2]
    most_tables = MAX_POOLED_TABLES if architecture.has_cross_network else MAX_FEATURES - 1
    if features - 1 > most_tables:
        return f"{features - 1:,} tables exceed the limit of {most_tables:,} of the gpu engine"
    if dimension > MAX_DIMENSION:
        return f"--arch-sparse-feature-size={dimension} exceeds the limit of {MAX_DIMENSION} of the gpu engine"
    if rows > MAX_ROWS:
        return f"{rows:,} rows of all tables exceed the limit of {MAX_ROWS:,} of the gpu engine"
    if last_inputs > MAX_INPUTS:
        return f"{last_inputs} inputs of the last layer exceed the limit of {MAX_INPUTS} of the gpu engine"
    return None
