"""Triton kernels of the GPU engine and their wrappers."""
