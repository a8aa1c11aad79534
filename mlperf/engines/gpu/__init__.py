"""GPU engine: matrix products of cuBLAS, with Triton kernels in between."""
