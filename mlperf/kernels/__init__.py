"""Loops that the fast training steps are made of, compiled for the CPU (numba) and the GPU (Triton)."""
