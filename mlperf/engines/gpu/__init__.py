"""The GPU engine, with Triton kernels."""
