"""Triton kernels of the GPU engine, each with the wrapper that launches it."""
